package manifest

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

func TestJSONToYAML(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"scalars", `{"a":1,"b":"x","c":true,"d":null,"e":1.50,"f":"yes","g":"","h":"1","i":"a: b","j":"\u001b[0m"}`, "a: 1\nb: x\nc: true\nd: null\ne: 1.50\nf: \"yes\"\ng: \"\"\nh: \"1\"\ni: \"a: b\"\n" + `j: "\x1b[0m"` + "\n"},
		{"nested", `{"z":{"w":{"x":[]}},"a":{}}`, "z:\n  w:\n    x: []\na: {}\n"},
		{"lists", `[{"a":1,"b":[1,[2,3],{"c":{"d":4}}]},"x",[]]`, "- a: 1\n  b:\n    - 1\n    -\n      - 2\n      - 3\n    - c:\n        d: 4\n- x\n- []\n"},
		{"one", `"x"`, "x\n"},
		{"none", `[]`, "[]\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := JSONToYAML([]byte(tt.in))
			if diff := cmp.Diff(tt.want, string(got)); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
	for _, bad := range []string{"", "{", `{"a"}`, "1 2", string(bytes.Repeat([]byte("["), 100))} {
		if out, err := JSONToYAML([]byte(bad)); err == nil {
			t.Errorf("%q became %q", bad, out)
		}
	}
}

// FuzzJSONToYAML holds that a reader of YAML gets the value that the JSON has.
func FuzzJSONToYAML(f *testing.F) {
	for _, seed := range []string{`{"a":[1,{"b":"- x"}],"":"\n"}`, `[[],{},"#",-1e5]`, `{"a":{"b":[[[1]]]}}`, `"é\u0085\ud83d\ude00"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		text, err := JSONToYAML(in)
		if err != nil {
			return
		}
		var want, got any
		if err := json.Unmarshal(in, &want); err != nil {
			t.Skip("two members of one name, or a number that does not fit") // Token lets them pass
		}
		var node yaml.Node
		if err := yaml.Unmarshal(text, &node); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		got = valueOf(t, node.Content[0])
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-json +yaml):\n%s", text, diff)
		}
	})
}

// valueOf reads a tree as JSON would: what is in quotes is text, and what else is a word is JSON's.
func valueOf(t *testing.T, n *yaml.Node) any {
	t.Helper()
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			out[n.Content[i].Value] = valueOf(t, n.Content[i+1])
		}
		return out
	case yaml.SequenceNode:
		out := []any{}
		for _, c := range n.Content {
			out = append(out, valueOf(t, c))
		}
		return out
	}
	var v any
	if isQuoted(n) || json.Unmarshal([]byte(n.Value), &v) != nil {
		return n.Value
	}
	return v
}
