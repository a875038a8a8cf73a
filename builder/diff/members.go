package diff

import (
	"errors"
	"fmt"
	"strconv"
)

// attribute is something that an archive says of a member.
type attribute struct {
	name  string // for a sentence, such as "modification time"
	value string
	cause Cause
}

// member is one member of an archive, or section of a program.
type member struct {
	name       string
	attributes []attribute // the same names in the same order in both archives, as far as they have them
	body       func() (content, error)
	packed     func() (content, error) // its compressed form, if the archive compresses it itself
	build      bool                    // its content is a build id
}

// fixed is the body of a member that needs no unpacking.
func fixed(c content) func() (content, error) { return func() (content, error) { return c, nil } }

// members adds the differences of two lists of members: which are missing, their order, what is said of them, and their contents. what names
// the kind of member in sentences.
func (e *explainer) members(at place, what string, as, bs []member, depth int) error {
	inA, inB := byKey(as), byKey(bs)
	e.order(at, what, as, bs, inA, inB)
	for _, key := range keys(as) {
		a := as[inA[key]]
		i, ok := inB[key]
		if !ok {
			e.addValues(at.in(a.name), Missing, fmt.Sprintf("Only the first has this %s.", what), a.name, "")
			continue
		}
		if err := e.member(at.in(a.name), what, a, bs[i], depth); err != nil {
			return err
		}
	}
	for _, key := range keys(bs) {
		if _, ok := inA[key]; !ok {
			name := bs[inB[key]].name
			e.addValues(at.in(name), Missing, fmt.Sprintf("Only the second has this %s.", what), "", name)
		}
	}
	return nil
}

// keys returns a name for each member that is unique in its list: the second "x" is another than the first.
func keys(list []member) []string {
	seen := map[string]int{}
	names := make([]string, 0, len(list))
	for _, m := range list {
		seen[m.name]++
		names = append(names, m.name+"\x00"+strconv.Itoa(seen[m.name]))
	}
	return names
}

func byKey(list []member) map[string]int {
	index := make(map[string]int, len(list))
	for i, key := range keys(list) {
		index[key] = i
	}
	return index
}

// order adds a difference if the members that both have do not come in the same order.
func (e *explainer) order(at place, what string, as, bs []member, inA, inB map[string]int) {
	keysA, keysB := keys(as), keys(bs)
	i, j := 0, 0
	for i < len(keysA) && j < len(keysB) {
		_, haveA := inB[keysA[i]]
		_, haveB := inA[keysB[j]]
		switch {
		case !haveA:
			i++
		case !haveB:
			j++
		case keysA[i] != keysB[j]:
			e.addValues(at, Order, fmt.Sprintf("The same %ss come in another order; from here on: %q and %q.", what, as[i].name, bs[j].name),
				as[i].name, bs[j].name)
			return
		default:
			i, j = i+1, j+1
		}
	}
}

func (e *explainer) member(at place, what string, a, b member, depth int) error {
	for i := range max(len(a.attributes), len(b.attributes)) {
		e.attribute(at, what, a, b, i)
	}
	if a.body == nil || b.body == nil {
		return nil
	}
	contentA, errA := a.body()
	contentB, errB := b.body()
	if err := errors.Join(errA, errB); err != nil {
		return e.unreadable(at, a, b, err)
	}
	before := len(e.found)
	if a.build && b.build {
		if err := e.buildID(at, contentA, contentB); err != nil {
			return err
		}
	} else if err := e.contents(at, contentA, contentB, depth); err != nil {
		return err
	}
	if len(e.found) == before && a.packed != nil && b.packed != nil {
		return e.packed(at, a, b)
	}
	return nil
}

// attribute compares the i-th attribute of two members; one that only one has is compared with "none".
func (e *explainer) attribute(at place, what string, a, b member, i int) {
	get := func(m member) attribute {
		if i < len(m.attributes) {
			return m.attributes[i]
		}
		return attribute{value: "none"}
	}
	x, y := get(a), get(b)
	if x.value == y.value && x.name == y.name {
		return
	}
	if x.name == "" {
		x.name, x.cause = y.name, y.cause
	}
	e.addValues(at, x.cause, fmt.Sprintf("The %s of the %s differs: %s and %s.", x.name, what, quote(x.value), quote(y.value)), x.value, y.value)
}

// packed compares the compressed form of two members with equal content.
func (e *explainer) packed(at place, a, b member) error {
	packedA, errA := a.packed()
	packedB, errB := b.packed()
	if err := errors.Join(errA, errB); err != nil {
		return e.unreadable(at, a, b, err)
	}
	s, err := compareBytes(e.ctx, packedA, packedB)
	if err != nil || s.first < 0 {
		return err
	}
	e.add(at, packedA, packedB, s, Compressor, "The content is equal; it was compressed by another program, version or level.")
	return nil
}

// unreadable says that the content of two members could not be unpacked. Their packed forms are compared instead, so that no difference
// is overlooked.
func (e *explainer) unreadable(at place, a, b member, err error) error {
	if e.ctx.Err() != nil {
		return e.ctx.Err()
	}
	if a.packed == nil || b.packed == nil {
		return err
	}
	packedA, errA := a.packed()
	packedB, errB := b.packed()
	if packErr := errors.Join(errA, errB); packErr != nil {
		return packErr
	}
	e.note(at, "not unpacked: "+oneLine(err))
	s, err := compareBytes(e.ctx, packedA, packedB)
	if err != nil || s.first < 0 {
		return err
	}
	e.add(at, packedA, packedB, s, Content, "The packed bytes differ, and could not be unpacked.")
	return nil
}

func (e *explainer) buildID(at place, a, b content) error {
	s, err := compareBytes(e.ctx, a, b)
	if err != nil || s.first < 0 {
		return err
	}
	e.add(at, a, b, s, BuildID, "The build ids differ: they are hashes of what went into the program, so look for the cause in the other differences.")
	return nil
}
