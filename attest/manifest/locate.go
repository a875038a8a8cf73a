package manifest

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// parenthesised are remarks in the paths of TrustRoot's errors, such as " (alice)".
var parenthesised = compiled(` \([^)]*\)`)

// locate gives errors of Validate the line and column of the field they name.
func (b *binder) locate(err error) error {
	var p problems
	switch e := err.(type) {
	case *SyntaxError:
		p.list = []*SyntaxError{e}
	case ErrorList:
		p.list = e
	default: // a text that begins with the path
		path, msg, found := strings.Cut(err.Error(), ": ")
		if first, _, _ := strings.Cut(path, " "); found && b.places[first] != nil {
			p.list = []*SyntaxError{{Path: path, Msg: msg, Err: err}}
		} else {
			p.list = []*SyntaxError{{Msg: err.Error(), Err: err}}
		}
	}
	for _, e := range p.list {
		if n := b.place(e.Path); n != nil {
			e.Line, e.Column = n.Line, n.Column
		}
	}
	return p.err()
}

// place returns the node at path, or the nearest one around it.
func (b *binder) place(path string) *yaml.Node {
	path = parenthesised().ReplaceAllString(path, "")
	for {
		if n := b.places[path]; n != nil || path == "" {
			return n
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
}
