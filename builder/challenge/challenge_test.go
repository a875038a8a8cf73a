package challenge_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/binarycache"
	"arch.network/builder/binarycache/cacheclient"
	"arch.network/builder/challenge"
	"arch.network/builder/diff"
	"arch.network/builder/nix/realisation"
	"arch.network/builder/store"
	"arch.network/builder/vouch"
)

var at = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

func storePath(letter, name string) storepath.Path {
	return storepath.Path{Dir: "/nix/store", Hash: strings.Repeat(letter, 32), Name: name}
}

var (
	top = storePath("a", "top")
	lib = storePath("b", "lib")
)

// cache is a binary cache in a directory, before anybody looks at it.
type cache struct {
	t   *testing.T
	dir string
	key binarycache.SecretKey
}

func newCache(t *testing.T, key string) *cache {
	t.Helper()
	c := &cache{t: t, dir: t.TempDir()}
	var err error
	if c.key, err = binarycache.GenerateKey(key, strings.NewReader(strings.Repeat(key, 32))); err != nil {
		t.Fatal(err)
	}
	return c
}

// put adds a path whose content is a file.
func (c *cache) put(p storepath.Path, content string, refs ...string) *cache {
	c.t.Helper()
	var data bytes.Buffer
	file := filepath.Join(c.t.TempDir(), "file")
	if err := errors.Join(os.WriteFile(file, []byte(content), 0o644), nar.Dump(c.t.Context(), &data, file, nar.Options{})); err != nil {
		c.t.Fatal(err)
	}
	n := &binarycache.NarInfo{
		StorePath: p, NarHash: digest.Of(data.Bytes()), NarSize: int64(data.Len()), References: refs,
		Files: []binarycache.File{{URL: p.Hash + ".nar", Compression: binarycache.None}},
	}
	n.Sigs = []binarycache.Signature{c.key.Sign(n.Fingerprint().String())}
	c.write(p.Hash+".nar", data.Bytes())
	c.narinfo(n)
	return c
}

func (c *cache) narinfo(n *binarycache.NarInfo) {
	c.t.Helper()
	text, err := n.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(n.StorePath.Hash+".narinfo", text)
}

func (c *cache) write(name string, data []byte) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), data, 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// change changes what is said of a path, without signing it.
func (c *cache) change(p storepath.Path, change func(n *binarycache.NarInfo)) *cache {
	c.t.Helper()
	data, err := os.ReadFile(filepath.Join(c.dir, p.Hash+".narinfo"))
	if err != nil {
		c.t.Fatal(err)
	}
	n, err := binarycache.ParseNarInfo(data)
	if err != nil {
		c.t.Fatal(err)
	}
	change(n)
	c.narinfo(n)
	return c
}

func (c *cache) voter() challenge.Voter {
	c.t.Helper()
	opened, err := cacheclient.Open("file://" + c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	return challenge.Cache{Cache: opened}
}

// keys is a list in which each cache is run by who its key is called after.
func keys(t *testing.T, operators map[string]*cache) *vouch.Keys {
	t.Helper()
	k := &vouch.Keys{}
	for operator, c := range operators {
		operator, _, _ = strings.Cut(operator, "/")
		if err := k.Add(operator, c.key.Public().String()); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func run(t *testing.T, o challenge.Options, paths ...storepath.Path) []challenge.Result {
	t.Helper()
	o.At = at
	results, err := challenge.Run(t.Context(), paths, o)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func TestOutcomes(t *testing.T) {
	a, b := newCache(t, "a").put(top, "x"), newCache(t, "b").put(top, "x")
	another := newCache(t, "c").put(top, "x") // a's second cache
	evil := newCache(t, "d").put(top, "evil")
	empty := newCache(t, "e")
	unsigned := newCache(t, "f").put(top, "x").change(top, func(n *binarycache.NarInfo) { n.Sigs = nil })
	forged := newCache(t, "b").put(top, "x").change(top, func(n *binarycache.NarInfo) { n.Sigs[0].Value[0] ^= 1 })
	swapped := newCache(t, "g").put(top, "x")
	swapped.write(top.Hash+".nar", evilNAR(t))
	elsewhere := newCache(t, "h").put(top, "x").change(top, func(n *binarycache.NarInfo) { n.Files[0].URL = "gone.nar" })
	other := newCache(t, "i")
	other.write(top.Hash+".narinfo", []byte("StorePath: /nix/store/"+lib.Base()+"\n"))
	local := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(local, "nix/store"), 0o755), os.WriteFile(filepath.Join(local, top.String()), []byte("local"), 0o644)); err != nil {
		t.Fatal(err)
	}
	k := keys(t, map[string]*cache{"a": a, "b": b, "a/2": another, "d": evil, "g": swapped, "h": elsewhere})
	for _, c := range []struct {
		name   string
		keys   *vouch.Keys
		voters []challenge.Voter
		want   challenge.Outcome
		reason string
		wrong  int
	}{
		{"two operators", k, []challenge.Voter{a.voter(), b.voter()}, challenge.Agree, "2 operators", 0},
		{"two caches without keys", nil, []challenge.Voter{a.voter(), unsigned.voter()}, challenge.Agree, "2 operators", 0},
		{"one cache without keys", nil, []challenge.Voter{a.voter(), empty.voter()}, challenge.Unknown, "only 1 of the 2", 0},
		{"two caches of one operator", k, []challenge.Voter{a.voter(), another.voter()}, challenge.Unknown, "only 1 of the 2", 0},
		{"one does not sign", k, []challenge.Voter{a.voter(), unsigned.voter()}, challenge.Unknown, "only 1 of the 2", 0},
		{"one has another", k, []challenge.Voter{a.voter(), b.voter(), evil.voter()}, challenge.Differ, "2 contents", 0},
		{"nobody has it", k, []challenge.Voter{empty.voter()}, challenge.Unknown, "nobody", 0},
		{"a signature is forged", k, []challenge.Voter{a.voter(), forged.voter()}, challenge.Unknown, "only 1", 1},
		{"serves something else than it says", k, []challenge.Voter{a.voter(), b.voter(), swapped.voter()}, challenge.Differ, "not what it says", 0},
		{"the NAR is gone", k, []challenge.Voter{a.voter(), b.voter(), elsewhere.voter()}, challenge.Agree, "2 operators", 0},
		{"the narinfo of another path", k, []challenge.Voter{a.voter(), b.voter(), other.voter()}, challenge.Differ, "not what it says", 0},
		{"this machine differs", k, []challenge.Voter{a.voter(), b.voter(), challenge.Local{Root: local}}, challenge.Differ, "2 contents", 0},
		{"this machine counts for nothing", nil, []challenge.Voter{challenge.Local{Root: local}}, challenge.Unknown, "only 0 of the 2", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := run(t, challenge.Options{Voters: c.voters, Keys: c.keys}, top)[0]
			if got.Outcome != c.want || !strings.Contains(got.Reason, c.reason) || len(got.Wrong) != c.wrong {
				t.Errorf("%s: %s, wrong %q, votes %+v", got.Outcome, got.Reason, got.Wrong, got.Votes)
			}
		})
	}
}

func evilNAR(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(newCache(t, "z").put(top, "y").dir, top.Hash+".nar"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestClosure follows references, of whichever cache says so.
func TestClosure(t *testing.T) {
	a := newCache(t, "a").put(top, "x", lib.Base()).put(lib, "l")
	b := newCache(t, "b").put(top, "x").put(lib, "l")
	var events []string
	results := run(t, challenge.Options{
		Voters: []challenge.Voter{a.voter(), b.voter()}, Closure: true,
		Progress: func(e challenge.Event) {
			if e.Result != nil {
				events = append(events, e.Path.Name)
			}
		},
	}, top)
	var got []string
	for _, r := range results {
		got = append(got, r.Path.Name+" "+string(r.Outcome))
	}
	if diff := cmp.Diff([]string{"top agree", "lib agree"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"top", "lib"}, events); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	_, err := challenge.Run(t.Context(), []storepath.Path{top}, challenge.Options{Voters: []challenge.Voter{a.voter()}, Closure: true, Paths: 1})
	if err == nil {
		t.Error("a closure over the limit is accepted")
	}
}

func TestExplain(t *testing.T) {
	a, b := newCache(t, "a").put(top, "built on 2026-01-01\n"), newCache(t, "b").put(top, "built on 2026-02-02\n")
	r := run(t, challenge.Options{Voters: []challenge.Voter{newCache(t, "e").voter(), a.voter(), b.voter()}}, top)[0]
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	report, err := challenge.Explain(t.Context(), s, r, diff.Options{})
	if err != nil || report == nil || report.Total != 1 || report.Differences[0].Cause != diff.Timestamp {
		t.Fatalf("%+v, %v", report, err)
	}
	if !strings.HasPrefix(report.A, "file://"+a.dir) || !strings.HasPrefix(report.B, "file://"+b.dir) {
		t.Errorf("of %q and %q", report.A, report.B)
	}
}

func TestSummary(t *testing.T) {
	a, b, evil := newCache(t, "a").put(top, "x"), newCache(t, "b").put(top, "x"), newCache(t, "c").put(top, "y")
	o := challenge.SummaryOptions{Verifier: attest.Verifier{ID: "https://example.org/v"}, Quorum: 2, At: at}
	for _, c := range []struct {
		name     string
		voters   []challenge.Voter
		result   string
		levels   []string
		subjects int
	}{
		{"agree", []challenge.Voter{a.voter(), b.voter()}, attest.Passed, []string{"ARCH_OPERATORS_2"}, 1},
		{"differ", []challenge.Voter{a.voter(), evil.voter()}, attest.Failed, []string{"FAILED"}, 2},
	} {
		stmt, err := challenge.Summary(run(t, challenge.Options{Voters: c.voters}, top)[0], o)
		if err != nil {
			t.Fatal(err)
		}
		v, err := stmt.VSA()
		if err != nil {
			t.Fatal(err)
		}
		if v.VerificationResult != c.result || len(stmt.Subject) != c.subjects || len(v.InputAttestations) != 2 || v.ResourceURI != "nix:"+top.String() {
			t.Errorf("%s: %+v of %v", c.name, v, stmt.Subject)
		}
		if diff := cmp.Diff(c.levels, v.VerifiedLevels); diff != "" {
			t.Errorf("%s: levels (-want +got):\n%s", c.name, diff)
		}
	}
	if _, err := challenge.Summary(run(t, challenge.Options{Voters: []challenge.Voter{a.voter()}}, top)[0], o); !errors.Is(err, challenge.ErrNothing) {
		t.Errorf("of nothing: %v", err)
	}
}

// TestOutputs asks caches in both layouts of realisations.
func TestOutputs(t *testing.T) {
	output := challenge.Output{Drv: storePath("d", "top.drv"), ID: digest.Of([]byte("derivation")), Name: "out"}
	if output.String() != output.Drv.String()+"^out" {
		t.Errorf("it is called %s", output)
	}
	older := realisation.Realisation{DrvHash: output.ID, Output: "out", Path: top.String()}
	newer := realisation.Realisation{Drv: output.Drv.Base(), Output: "out"}
	tell := func(key string, change func(*realisation.Realisation)) *cache {
		c := newCache(t, key)
		said := older
		text, err := said.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		said.Signatures = []binarycache.Signature{c.key.Sign(text)}
		change(&said)
		data, err := said.Encode()
		if err := errors.Join(err, os.Mkdir(filepath.Join(c.dir, realisation.Dir), 0o755)); err != nil {
			t.Fatal(err)
		}
		c.write(older.Name(), data)
		return c
	}
	asIs := func(*realisation.Realisation) {}
	a, b := tell("a", asIs), tell("b", asIs)
	lies := tell("b", func(r *realisation.Realisation) { r.Path = lib.String() })
	unsigned := tell("c", func(r *realisation.Realisation) { r.Signatures = nil })
	silent, trace, garbage := newCache(t, "e"), newCache(t, "f"), newCache(t, "g")
	for c, text := range map[*cache]string{trace: `{"outPath":"` + top.Base() + `","signatures":[]}`, garbage: `{"outPath":"x"}`} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(c.dir, newer.TraceName())), 0o755); err != nil {
			t.Fatal(err)
		}
		c.write(newer.TraceName(), []byte(text))
	}
	k := keys(t, map[string]*cache{"a": a, "b": b, "f": trace})
	for _, tt := range []struct {
		name   string
		keys   *vouch.Keys
		of     []*cache
		want   challenge.Outcome
		reason string
		wrong  int
	}{
		{"two operators", k, []*cache{a, b, silent}, challenge.Agree, "2 operators vouch for /nix/store/a", 0},
		{"unsigned", k, []*cache{a, unsigned}, challenge.Unknown, "only 1 of the 2", 0},
		{"unsigned, and nobody asks for keys", nil, []*cache{a, unsigned}, challenge.Agree, "2 operators", 0},
		{"the newer layout, without keys", nil, []*cache{a, trace}, challenge.Agree, "2 operators", 0},
		{"the newer layout, whose signatures are not known", k, []*cache{a, trace}, challenge.Unknown, "only 1 of the 2", 0},
		{"another path", k, []*cache{a, b, lies}, challenge.Differ, "at 2 paths", 1},
		{"what is none", k, []*cache{a, b, garbage}, challenge.Differ, "cannot be read", 0},
		{"nobody", k, []*cache{silent}, challenge.Unknown, "nobody who was asked", 0},
	} {
		o := challenge.Options{Keys: tt.keys, At: at}
		for _, c := range tt.of {
			o.Voters = append(o.Voters, c.voter())
		}
		o.Voters = append(o.Voters, challenge.Local{Root: t.TempDir()}) // says nothing of outputs
		got, err := challenge.Outputs(t.Context(), []challenge.Output{output}, o)
		if err != nil {
			t.Fatal(err)
		}
		if r := got[0]; r.Outcome != tt.want || !strings.Contains(r.Reason, tt.reason) || len(r.Wrong) != tt.wrong || len(r.Tellings) != len(tt.of) {
			t.Errorf("%s: %s: %s, wrong %q, %+v", tt.name, r.Outcome, r.Reason, r.Wrong, r.Tellings)
		}
	}
}
