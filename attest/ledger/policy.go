package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"arch.network/attest/digest"
)

// Policy says which logs count, and whose cosignatures a checkpoint of them needs (C2SP tlog-policy):
//
//	log VKEY [URL]
//	witness NAME VKEY [URL]
//	group NAME k|any|all NAME...
//	quorum NAME|none
//
// Several log lines with the same key name are one log that signs with several keys, such as Ed25519 and ML-DSA-44: every
// one of them must have signed, so that leaving out the stronger signature does not help. A public key may
// stand in one line only.
type Policy struct {
	logs      map[string][]key // by origin
	witnesses []witness        // in the order of the file
	quorum    *component       // nil: none is needed
}

type witness struct {
	name, url string
	key       key
}

// component is a witness, or a group that needs some of its members.
type component struct {
	witness   string // its name; empty for a group
	threshold int
	members   []*component
}

// Witness tells a witness's name and, if the policy has one, its address.
type Witness struct{ Name, URL string }

// ParsePolicy reads a policy. Errors name the line.
func ParsePolicy(text []byte) (*Policy, error) {
	if len(text) > MaxPolicy {
		return nil, fmt.Errorf("read ledger policy: %d bytes are over the limit of %d", len(text), MaxPolicy)
	}
	r := policyReader{policy: &Policy{logs: map[string][]key{}}, known: map[string]*component{}, keys: map[digest.SHA256]int{}}
	for n, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		r.line = n + 1
		if err := r.read(fields); err != nil {
			return nil, fmt.Errorf("read ledger policy: line %d: %w", n+1, err)
		}
	}
	switch {
	case len(r.policy.logs) == 0:
		return nil, errors.New("read ledger policy: it names no log")
	case !r.decided:
		return nil, errors.New("read ledger policy: it has no quorum line; `quorum none` asks for no witness")
	}
	return r.policy, nil
}

// policyReader builds a Policy line by line: what a line names must stand above it.
type policyReader struct {
	policy  *Policy
	line    int
	known   map[string]*component
	keys    map[digest.SHA256]int // the line of each public key
	decided bool                  // there was a quorum line
}

func (r *policyReader) read(fields []string) error {
	args := fields[1:]
	switch fields[0] {
	case "log":
		return r.log(args)
	case "witness":
		return r.witness(args)
	case "group":
		return r.group(args)
	case "quorum":
		return r.quorum(args)
	}
	return fmt.Errorf("%q is not log, witness, group or quorum", shorten(fields[0]))
}

func (r *policyReader) log(args []string) error {
	if len(args) != 1 && len(args) != 2 {
		return errors.New("want `log VKEY [URL]`")
	}
	k, err := parseLogKey(args[0])
	if err != nil {
		return err
	}
	if err := r.once(k); err != nil {
		return err
	}
	origin := k.verifier.Name()
	r.policy.logs[origin] = append(r.policy.logs[origin], k)
	return nil
}

func (r *policyReader) witness(args []string) error {
	if len(args) != 2 && len(args) != 3 {
		return errors.New("want `witness NAME VKEY [URL]`")
	}
	k, err := parseWitnessKey(args[1])
	if err != nil {
		return err
	}
	if err := r.once(k); err != nil {
		return err
	}
	if err := r.define(args[0], &component{witness: args[0]}); err != nil {
		return err
	}
	r.policy.witnesses = append(r.policy.witnesses, witness{name: args[0], url: strings.Join(args[2:], ""), key: k})
	return nil
}

// once refuses a public key that another line has: who holds it would count twice.
func (r *policyReader) once(k key) error {
	if line, ok := r.keys[k.public]; ok {
		return fmt.Errorf("the public key stands in line %d already", line)
	}
	r.keys[k.public] = r.line
	return nil
}

func (r *policyReader) define(name string, c *component) error {
	if slices.Contains([]string{"log", "witness", "group", "quorum", "any", "all", "none"}, name) {
		return fmt.Errorf("%q is a word of the format and cannot be a name", name)
	}
	if r.known[name] != nil {
		return fmt.Errorf("the name %q is taken", shorten(name))
	}
	r.known[name] = c
	return nil
}

func (r *policyReader) group(args []string) error {
	if len(args) < 3 {
		return errors.New("want `group NAME k|any|all NAME...`")
	}
	c := &component{}
	for i, name := range args[2:] {
		member := r.known[name]
		switch {
		case member == nil:
			return fmt.Errorf("%q is not defined above", shorten(name))
		case slices.Contains(args[2:2+i], name):
			return fmt.Errorf("%q is listed twice", shorten(name))
		}
		c.members = append(c.members, member)
	}
	switch n, err := strconv.Atoi(args[1]); {
	case args[1] == "any":
		c.threshold = 1
	case args[1] == "all":
		c.threshold = len(c.members)
	case err != nil || n < 1 || n > len(c.members):
		return fmt.Errorf("the threshold %q is not any, all or a number from 1 to %d", shorten(args[1]), len(c.members))
	default:
		c.threshold = n
	}
	return r.define(args[0], c)
}

func (r *policyReader) quorum(args []string) error {
	switch {
	case len(args) != 1:
		return errors.New("want `quorum NAME` or `quorum none`")
	case r.decided:
		return errors.New("there is a quorum line above")
	case args[0] != "none" && r.known[args[0]] == nil:
		return fmt.Errorf("%q is not defined above", shorten(args[0]))
	}
	r.decided = true
	r.policy.quorum = r.known[args[0]]
	return nil
}

// satisfied reports whether the witnesses named in by fulfil the component.
func (c *component) satisfied(by map[string]bool) bool {
	if c == nil {
		return true
	}
	if c.witness != "" {
		return by[c.witness]
	}
	n := 0
	for _, m := range c.members {
		if m.satisfied(by) {
			n++
		}
	}
	return n >= c.threshold
}

// Origins lists the logs, sorted.
func (p *Policy) Origins() []string {
	var list []string
	for origin := range p.logs {
		list = append(list, origin)
	}
	slices.Sort(list)
	return list
}

// Witnesses lists the witnesses in the order of the policy.
func (p *Policy) Witnesses() []Witness {
	var list []Witness
	for _, w := range p.witnesses {
		list = append(list, Witness{Name: w.name, URL: w.url})
	}
	return list
}
