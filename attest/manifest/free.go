package manifest

import (
	"reflect"

	"gopkg.in/yaml.v3"
)

// free binds a node without a schema: its types are those on which all readers agree.
func (b *binder) free(n *yaml.Node, path string) {
	switch n.Kind {
	case yaml.ScalarNode:
		b.freeScalar(n, path)
	case yaml.SequenceNode:
		b.json.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				b.json.WriteByte(',')
			}
			b.free(item, path)
		}
		b.json.WriteByte(']')
	default:
		b.json.WriteByte('{')
		for i := 0; i < len(n.Content); i += 2 {
			if i > 0 {
				b.json.WriteByte(',')
			}
			b.string(n.Content[i].Value)
			b.json.WriteByte(':')
			b.free(n.Content[i+1], path)
		}
		b.json.WriteByte('}')
	}
}

func (b *binder) freeScalar(n *yaml.Node, path string) {
	t := reflect.TypeFor[string]()
	if !isQuoted(n) {
		switch plainKind(n.Value) {
		case kindInteger:
			t = reflect.TypeFor[int64]()
		case kindFloat:
			t = reflect.TypeFor[float64]()
		case kindBoolean:
			if n.Value == "true" || n.Value == "false" {
				t = reflect.TypeFor[bool]()
			}
		}
	}
	b.scalar(n, t, path)
}
