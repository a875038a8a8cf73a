package derivation

import (
	"bytes"
	"strings"
	"testing"

	"arch.network/attest/digest/nar"
	"arch.network/builder/nix/drv"

	"github.com/google/go-cmp/cmp"
)

func TestURLs(t *testing.T) {
	for _, tt := range []struct {
		env  []drv.Var
		want []string
	}{
		{nil, nil},
		{[]drv.Var{{Name: "url", Value: "https://a/x"}}, []string{"https://a/x"}},
		{[]drv.Var{{Name: "urls", Value: "https://b/x https://a/x"}}, []string{"https://a/x", "https://b/x"}},
		// builtin:download of Guix
		{[]drv.Var{{Name: "url", Value: `"mirror://gnu/hello/hello-2.12.2.tar.gz"`}}, []string{"mirror://gnu/hello/hello-2.12.2.tar.gz"}},
		{[]drv.Var{{Name: "url", Value: `("https://b/x" "https://a/\"y\\")`}}, []string{`https://a/"y\`, "https://b/x"}},
		{[]drv.Var{{Name: "url", Value: `"https://a/unended`}}, []string{"https://a/unended"}},
	} {
		d := &drv.Derivation{Env: tt.env}
		if diff := cmp.Diff(tt.want, urls(d)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.env, diff)
		}
	}
}

// FuzzBundle: carried derivations come from anybody.
func FuzzBundle(f *testing.F) {
	var buf bytes.Buffer
	w := nar.NewWriter(&buf, nar.Limits{})
	w.WriteEntry(nar.Entry{Type: nar.Directory})
	w.WriteEntry(nar.Entry{Path: "6va974l5kw88ij3hw6knmb4l4a2qm1ca-x.drv", Type: nar.Regular, Size: 3})
	w.Write([]byte("abc"))
	w.Close()
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		files := map[string][]byte{}
		if readBundle(data, files) != nil {
			return
		}
		for name, content := range files {
			if strings.Contains(name, "/") || len(content) > drv.MaxSize {
				t.Errorf("%q with %d bytes", name, len(content))
			}
		}
	})
}
