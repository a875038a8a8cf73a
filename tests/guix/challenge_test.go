package guix_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testChallenged asks two substitute servers of Guix (`guix publish`), who sign with different keys and pack in different ways, a copy of what one of them
// serves, and guix-daemon, which builds again; then those who serve something else than they signed.
func testChallenged(t *testing.T, s *shop, b built) {
	c := newChallenge(t, s, b)
	t.Run("by nobody", c.byNobody)
	t.Run("closure", c.closure)
	t.Run("as guix challenge", c.asGuix)
	t.Run("tampered copies", c.tamperedCopies)
	t.Run("a changed store", c.changedStore)
}

// challenged is a store path that servers publish.
type challenged struct {
	*shop
	path     string // it refers to another output, which refers to a text, which refers to a program
	one, two string // URLs
}

func newChallenge(t *testing.T, s *shop, b built) *challenged {
	t.Helper()
	c := &challenged{shop: s}
	for _, o := range b.Outputs {
		if strings.HasSuffix(o.StorePath, "-lib") {
			c.path = o.StorePath
		}
	}
	var keys [2]string
	c.one, keys[0] = s.m.StartPublish(t, "--compression=gzip", "--compression=0")
	c.two, keys[1] = s.m.StartPublish(t, "--compression=lzip")
	var text strings.Builder
	for i, operator := range []string{"one.example", "two.example"} {
		text.WriteString("operator " + operator + " " + strings.Join(strings.Fields(keys[i]), " ") + "\n")
	}
	if err := os.WriteFile(filepath.Join(s.scratch, "operators"), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// copyOf makes a cache in a directory of what the first server serves of the path, not packed. change is a script of sed for its narinfo, and edit one for
// its NAR; empty: none.
func (c *challenged) copyOf(t *testing.T, name, change, edit string) (url string) {
	t.Helper()
	const script = `base=${2##*/} hash=${2##*/}; hash=${hash%%-*}
mkdir -p "$3/nar"; cd "$3"
printf 'StoreDir: /gnu/store\n' > nix-cache-info
busybox wget -q -O - "$1/$hash.narinfo" | sed "/^URL: nar.gzip/,/^Compression: gzip/d; $4" > "$hash.narinfo"
busybox wget -q -O - "$1/nar/$base" | sed "$5" > "nar/$base"`
	dir := filepath.Join(c.scratch, name)
	if out, status := c.command(t, "sh", "-ec", script, "copy", c.one, c.path, dir, change, edit); status != 0 {
		t.Fatal(out.stderr)
	}
	return "file://" + dir
}

// challenge runs the command, which must end with a status.
func (c *challenged) challenge(t *testing.T, status int, caches []string, flags ...string) said {
	t.Helper()
	args := append([]string{"challenge", c.path, "--keys", "operators", "--substituters", strings.Join(caches, ",")}, flags...)
	return c.want(t, status, args...)
}

// byNobody asks a cache that has nothing: a rebuild alone is one operator.
func (c *challenged) byNobody(t *testing.T) {
	if err := os.MkdirAll(filepath.Join(c.scratch, "nothing"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.scratch, "nothing", "nix-cache-info"), []byte("StoreDir: /gnu/store\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.challenge(t, 3, []string{"file://" + c.scratch + "/nothing"}, "--rebuild").has(t, `only 1 of the 2 operators that are needed vouch for it: self$`, `has +rebuild sha256-`)
}

// closure wants three ways to pack to agree on everything that the path refers to, with a signed summary; what was built is built again, too.
func (c *challenged) closure(t *testing.T) {
	copied := c.copyOf(t, "copy", "", "")
	out := c.challenge(t, 0, []string{c.one, c.two, copied}, "-r", "--rebuild", "--json", "--attest", "challenged.jsonl")
	var got struct {
		Outcome string
		Paths   []struct {
			Path, Outcome string
			Operators     []string
			Votes         []struct{ Voter, State string }
		}
	}
	if err := json.Unmarshal([]byte(out.stdout), &got); err != nil {
		t.Fatalf("%v\n%s", err, out.stdout)
	}
	var paths []string
	for _, p := range got.Paths {
		paths = append(paths, p.Path)
		want := []string{"one.example", "two.example"}
		if strings.Contains(p.Path, "-graph") { // the others are sources
			want = []string{"one.example", "self", "two.example"}
		}
		if diff := cmp.Diff(want, p.Operators); diff != "" || p.Outcome != "agree" {
			t.Errorf("%s: %s, operators (-want +got):\n%s", p.Path, p.Outcome, diff)
		}
		for _, v := range p.Votes {
			if (v.Voter == c.one || v.Voter == c.two || v.Voter == copied && p.Path == c.path) && v.State != "has" {
				t.Errorf("%s: %s: %s", p.Path, v.Voter, v.State)
			}
		}
	}
	want, _ := c.command(t, "guix", "gc", "--requisites", c.path)
	if diff := cmp.Diff(strings.Fields(want.stdout), paths, cmpSorted); diff != "" || len(paths) < 4 {
		t.Errorf("closure (-guix +arch):\n%s", diff)
	}
	if receipt := c.receipt(t, "challenged.jsonl"); len(receipt.Summaries) != len(paths) {
		t.Errorf("%d summaries of %d paths", len(receipt.Summaries), len(paths))
	}
	// Somebody whose key nobody knows is nobody.
	if err := os.WriteFile(filepath.Join(c.scratch, "others"), []byte("operator three.example "+"(public-key (ecc (curve Ed25519) (q #8D156F295D24B0D9A86FA5741A840FF2D24F60F7B6C4134814AD55625971B394#)))\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.want(t, 3, "challenge", c.path, "--keys", "others", "--substituters", c.one+","+c.two).has(t, `only 0 of the 2 operators`)
}

// asGuix compares with what Guix itself finds.
func (c *challenged) asGuix(t *testing.T) {
	if out, status := c.command(t, "guix", "challenge", "--substitute-urls="+c.one+" "+c.two, c.path); status != 0 || !strings.Contains(out.stdout+out.stderr, "1 (100.0%) were identical") {
		t.Errorf("guix challenge: %d\n%s%s", status, out.stdout, out.stderr)
	}
}

// tamperedCopies changes what a copy serves. What is signed cannot be changed, and what is not signed misleads nobody.
func (c *challenged) tamperedCopies(t *testing.T) {
	const other = "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s"
	for _, tt := range []struct {
		name, change, edit string
		status             int
		want               string
	}{
		{"NAR", "", "s/of .gnu/of .GNU/", 5, `what file://.* serves is not what it says`},
		{"its end", "", "$d", 5, `what file://.* serves is not what it says`},
		{"NarHash", "s/^NarHash: .*/NarHash: " + other + "/", "", 5, `serves is not what it says`},
		{"References", "s/^References: .*/References: /", "", 4, `WRONG SIGNATURE file://`},
		{"Deriver", "s/^Deriver: .*/Deriver: x.drv/", "", 4, `WRONG SIGNATURE file://`},
		{"no Signature", "/^Signature: /d", "", 3, `only 1 of the 2 operators that are needed vouch for it: two.example`},
		{"a field behind it", "$a NarSize: 1", "", 5, `NarSize: it stands behind the signature`},
		{"Compression", "s/^Compression: .*/Compression: gzip/", "", 3, `only 1 of the 2 operators`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			evil := c.copyOf(t, "evil-"+strings.ReplaceAll(tt.name, " ", "-"), tt.change, tt.edit)
			c.challenge(t, tt.status, []string{evil, c.two}).has(t, tt.want)
		})
	}
}

// changedStore has somebody change what lies in the server's store. Its narinfo, and so `guix challenge`, say what was there.
func (c *challenged) changedStore(t *testing.T) {
	const change = `cp -p "$0" /tmp/honest; chmod u+w "$0"; echo more >> "$0"`
	if out, status := c.command(t, "sh", "-ec", change, c.path); status != 0 {
		t.Fatal(out.stderr)
	}
	c.asGuix(t)
	c.challenge(t, 5, []string{c.one, c.two}).has(t, `has +local sha256-`, `broken +`+c.one+` .*the NAR has more than [0-9]+ bytes`)
	if out, status := c.command(t, "cp", "-p", "/tmp/honest", c.path); status != 0 {
		t.Fatal(out.stderr)
	}
	c.challenge(t, 0, []string{c.one, c.two})
}
