package manifest

import (
	"slices"

	"gopkg.in/yaml.v3"
)

// Setting is one line of a configuration file: a name with a value, or with a list of them.
type Setting struct {
	Name   string
	Values []string // as they are written, without quotes; one if it is no list
	List   bool
	Line   int // of the name, from 1
	Column int // in characters, from 1
}

// ReadSettings reads the configuration of a program: a mapping of names to strings, integers, true, false, or lists of these, in the strict
// YAML of ReadYAML, in the order of the file. Which names there are is the program's business. A file with nothing but comments is none.
func ReadSettings(src []byte) ([]Setting, error) {
	file, err := parseYAML(src)
	if err != nil {
		return nil, err
	}
	var out []Setting
	for pair := range slices.Chunk(file.root.Content, 2) {
		s := Setting{Name: pair[0].Value, Line: pair[0].Line, Column: pair[0].Column}
		values := []*yaml.Node{pair[1]}
		if pair[1].Kind == yaml.SequenceNode {
			values, s.List = pair[1].Content, true
		}
		for _, v := range values {
			text, err := settingValue(v)
			if err != nil {
				return nil, err
			}
			s.Values = append(s.Values, text)
		}
		out = append(out, s)
	}
	return out, nil
}

func settingValue(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode {
		return "", at(n, "write a value, or a list of values", "a setting holds no mapping, and a list no lists")
	}
	if !isQuoted(n) {
		if kind := plainKind(n.Value); kind == kindInteger || kind == kindBoolean {
			return n.Value, nil
		}
	}
	text, err := stringScalar(n)
	if err != nil { // not returned as it is: a nil *SyntaxError is no nil error
		return "", err
	}
	return text, nil
}
