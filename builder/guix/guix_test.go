package guix

import (
	"strings"
	"testing"

	"arch.network/attest"
	"arch.network/builder/derivation"

	"github.com/google/go-cmp/cmp"
)

func TestTarget(t *testing.T) {
	const path = "/gnu/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-x.drv"
	for _, tt := range []struct {
		arg  string
		want []string // of guix build
		err  string
	}{
		{"hello", []string{"hello"}, ""},
		{"hello@2.12", []string{"hello@2.12"}, ""},
		{"/a/b.scm", []string{"--file=/a/b.scm"}, ""},
		{path, []string{""}, ""}, // asks the daemon
		{"", nil, "neither a package"},
		{"--with-input=a=b", nil, "neither a package"},
		{"two words", nil, "neither a package"},
	} {
		got, err := ParseTarget(tt.arg)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: %v, want %s", tt.arg, err, tt.err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got.arguments()); diff != "" || err != nil || got.Text != tt.arg {
			t.Errorf("%q: %v, %+v (-want +got):\n%s", tt.arg, err, got, diff)
		}
	}
	if _, ok := FindPath("/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-x.drv"); ok {
		t.Error("a path of Nix is one of Guix")
	}
}

func TestChannels(t *testing.T) {
	const commit = "9edb3f66fd807b096b48283debdcddccfea34bad"
	guix := attest.ResourceDescriptor{Name: "guix", URI: "git+https://git.guix.gnu.org/guix.git@" + commit, Digest: map[string]string{"gitCommit": commit}}
	other := attest.ResourceDescriptor{Name: "other", URI: "git+https://example.org/other@" + commit, Digest: map[string]string{"gitCommit": commit}}
	for _, tt := range []struct {
		name, text string
		want       []attest.ResourceDescriptor
		err        string
	}{
		{"of Debian, whose commit is not known", `{"name":"guix","url":false,"branch":false,"commit":false,"introduction":{"commit":"x","signer":"y"}}`, nil, ""},
		{"a checkout", `{"name":"guix","url":"https://git.guix.gnu.org/guix.git","branch":"master","commit":"` + commit + `"}`, []attest.ResourceDescriptor{guix}, ""},
		{
			"pulled, in any order", `[{"name":"other","url":"https://user:secret@example.org/other","commit":"` + commit + `"},
				{"name":"guix","url":"https://git.guix.gnu.org/guix.git","branch":"master","commit":"` + commit + `"}]`,
			[]attest.ResourceDescriptor{guix, other},
			"",
		},
		{"from nowhere", `[{"name":"guix","url":false,"commit":"` + commit + `"}]`, nil, `"guix" at "" is none`},
		{"no commit", `[{"name":"guix","url":"https://example.org/","commit":"--help"}]`, nil, `is none`},
		{"no JSON", `guix`, nil, "read channels of Guix"},
	} {
		got, err := parseChannels([]byte(tt.text))
		if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q (-want +got):\n%s", tt.name, err, tt.err, diff)
		}
	}
}

// FuzzChannels: what is taken from what a program printed may stand in a statement.
func FuzzChannels(f *testing.F) {
	f.Add([]byte(`[{"name":"guix","url":"https://example.org/guix","commit":"9edb3f66fd807b096b48283debdcddccfea34bad"}]`))
	f.Add([]byte(`{"name":"guix","url":false,"commit":false}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseChannels(data)
		if err != nil {
			return
		}
		for _, d := range list {
			if len(d.Digest["gitCommit"]) != 40 && len(d.Digest["gitCommit"]) != 64 || strings.Contains(d.URI, "\n") {
				t.Errorf("%+v", d)
			}
		}
	})
}

func TestMessages(t *testing.T) {
	for _, tt := range []struct{ output, message, hint string }{
		{"guix build: error: nosuch: unknown package\n", "nosuch: unknown package", "guix search"},
		{"guix build: error: hello: package not found for version 99\n", "hello: package not found for version 99", "guix show"},
		{"Backtrace:\nIn x:\n  1 (f _)\n\nguix/ui.scm:920:18: In procedure getaddrinfo: Temporary failure in name resolution\n", "guix/ui.scm:920:18: In procedure getaddrinfo: Temporary failure in name resolution", "network"},
		{"", "guix failed with status 1", ""},
	} {
		e := &CommandError{derivation.ExitError{Act: "evaluate x", Status: 1, Output: tt.output}}
		if got := e.Error(); got != "evaluate x: "+tt.message {
			t.Errorf("%q", got)
		}
		if got := e.Hint(); !strings.Contains(got, tt.hint) || (got == "") != (tt.hint == "") {
			t.Errorf("%q: hint %q", tt.output, got)
		}
	}
}
