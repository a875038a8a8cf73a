package nix

import (
	"strings"
	"testing"
)

// The outputs are what Nix 2.8 wrote where there is no network.
func TestUnreachable(t *testing.T) {
	for _, tt := range []struct{ name, output, want, hint string }{
		{
			"a source",
			`warning: unable to download 'http://127.0.0.1:1/cache/nix-cache-info': Couldn't connect to server (7)
these 2 derivations will be built:
  /nix/store/jpcpwki8b3c7l2zvb22msf6gbl17y31s-src.drv
building '/nix/store/jpcpwki8b3c7l2zvb22msf6gbl17y31s-src.drv'...
error: unable to download 'http://u:secret@127.0.0.1:1/x.tar': Couldn't connect to server (7)
error: builder for '/nix/store/jpcpwki8b3c7l2zvb22msf6gbl17y31s-src.drv' failed with exit code 1
error: 1 dependencies of derivation '/nix/store/h8lz4qwiy1bb8bhmhsppsaji204h9rjs-top.drv' failed to build
`,
			"build x: cannot download http://u:xxxxx@127.0.0.1:1/x.tar: Couldn't connect to server (7); no answer from the substituter http://127.0.0.1:1/cache: Couldn't connect to server (7)",
			"see that this machine reaches that address",
		},
		{
			"a substituter",
			`warning: error: unable to download 'http://127.0.0.1:1/cache/nix-cache-info': Couldn't connect to server (7); retrying in 293 ms
warning: unable to download 'http://127.0.0.1:1/cache/nix-cache-info': Couldn't connect to server (7)
don't know how to build these paths:
  /nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-plain
error: build of '/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-plain' failed
`,
			"build x: build of '/nix/store/6va974l5kw88ij3hw6knmb4l4a2qm1ca-plain' failed; no answer from the substituter http://127.0.0.1:1/cache: Couldn't connect to server (7)",
			"see that this machine reaches the substituter",
		},
		{
			"a flake's input",
			`error: unable to download 'http://127.0.0.1:1/dep.tar.gz': Couldn't resolve host name (6)
(use '--show-trace' to show detailed location information)
`,
			"build x: cannot download http://127.0.0.1:1/dep.tar.gz: Couldn't resolve host name (6)", "--add-fixed",
		},
		{"something else", "error: attribute 'x' missing\n", "build x: attribute 'x' missing", ""},
	} {
		e := &CommandError{Act: "build x", Status: 1, Output: tt.output}
		if got := e.Error(); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
		if hint := e.Hint(); !strings.Contains(hint, tt.hint) || tt.hint == "" && hint != "" {
			t.Errorf("%s: hint %q, want %q in it", tt.name, hint, tt.hint)
		}
	}
}
