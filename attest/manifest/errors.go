package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// SyntaxError says what is wrong with one place of a document.
type SyntaxError struct {
	File   string // name of the file, if InFile gave one
	Line   int    // from 1; zero if the document was not read from YAML
	Column int    // in characters, from 1; zero if unknown
	Path   string // of the field, such as "spec.inputs[2].mount"; empty for the document as a whole
	Msg    string // what is wrong, such as `unknown field "imputs"`
	Cure   string // the way out; may be empty
	Err    error  // the cause, such as an *UnpinnedError; may be nil
}

func (e *SyntaxError) Error() string {
	where := e.place()
	if where != "" {
		where += ": "
	}
	if e.Path != "" {
		where += e.Path + ": "
	}
	return where + e.Msg
}

// place is where in the document it is, such as "build.yaml:3:7" or "line 3:7"; empty if that is not known.
func (e *SyntaxError) place() string {
	at := ""
	if e.Line > 0 {
		at = strconv.Itoa(e.Line)
		if e.Column > 0 {
			at += ":" + strconv.Itoa(e.Column)
		}
	}
	switch {
	case e.File == "" && at == "":
		return ""
	case e.File == "":
		return "line " + at
	case at == "":
		return e.File
	}
	return e.File + ":" + at
}

// Hint tells the way out, or "" if none is known.
func (e *SyntaxError) Hint() string { return e.Cure }

// Unwrap returns the cause.
func (e *SyntaxError) Unwrap() error { return e.Err }

// ErrorList is everything that is wrong with a document, in the order of its lines; at least two errors.
type ErrorList []*SyntaxError

// maxErrors bounds an ErrorList, so that a hostile document cannot make a long message.
const maxErrors = 20

func (l ErrorList) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Hint is the different hints of the list, one a line, each after the places that it is about, unless it is about all of them.
func (l ErrorList) Hint() string {
	var hints []string
	places := map[string][]string{}
	for _, e := range l {
		if e.Cure == "" {
			continue
		}
		if places[e.Cure] == nil {
			hints = append(hints, e.Cure)
		}
		places[e.Cure] = append(places[e.Cure], cmp.Or(e.place(), e.Path))
	}
	for i, hint := range hints {
		if at := places[hint]; len(at) < len(l) {
			hints[i] = strings.Join(at, ", ") + ": " + hint
		}
	}
	return strings.Join(hints, "\n")
}

// Unwrap returns the errors of the list.
func (l ErrorList) Unwrap() []error {
	out := make([]error, len(l))
	for i, e := range l {
		out[i] = e
	}
	return out
}

// InFile returns err with every place in it marked as one of the named file. Errors of other types come back as they are.
func InFile(err error, name string) error {
	mark := func(e *SyntaxError) *SyntaxError {
		marked := *e
		marked.File = name
		return &marked
	}
	switch e := err.(type) {
	case *SyntaxError:
		return mark(e)
	case ErrorList:
		out := make(ErrorList, len(e))
		for i := range e {
			out[i] = mark(e[i])
		}
		return out
	}
	return err
}

// problems gathers what is wrong with one document.
type problems struct {
	list []*SyntaxError
	// parsed says that the document was just read, so that values which are read from a text of their own need not be checked again.
	parsed bool
}

// add records that something is wrong at path. It does nothing once there are maxErrors.
func (p *problems) add(path, cure, format string, args ...any) {
	p.append(&SyntaxError{Path: path, Msg: fmt.Sprintf(format, args...), Cure: cure})
}

// wrap records err at path, with the hint it has.
func (p *problems) wrap(path string, err error) {
	e := &SyntaxError{Path: path, Msg: err.Error(), Err: err}
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		e.Cure = h.Hint()
	}
	p.append(e)
}

func (p *problems) append(e *SyntaxError) {
	if len(p.list) < maxErrors {
		p.list = append(p.list, e)
	}
}

// err returns nil, the one problem, or all of them sorted by place.
func (p *problems) err() error {
	switch len(p.list) {
	case 0:
		return nil
	case 1:
		return p.list[0]
	}
	slices.SortStableFunc(p.list, func(a, b *SyntaxError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return ErrorList(p.list)
}
