package drv_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"arch.network/builder/nix/drv"

	"github.com/google/go-cmp/cmp"
	gonix "github.com/nix-community/go-nix/pkg/derivation"
)

// files are the .drv files of a store, by path.
type files map[string][]byte

func (f files) read(path string) ([]byte, error) {
	data, ok := f[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

// instantiate evaluates the derivations of ../testdata/graph.nix with the real Nix.
func instantiate(t *testing.T) files {
	t.Helper()
	for _, program := range []string{"nix-instantiate", "/bin/busybox", "/bin/bash-static"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("cannot run here: %s is not installed (packages nix-bin, busybox-static, bash-static)", program)
		}
	}
	work := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "nix-instantiate", "--store", work+"/root", "../testdata/graph.nix")
	cmd.Env = append(os.Environ(), "HOME="+work, "XDG_CACHE_HOME="+work, "NIX_CONFIG=experimental-features = ca-derivations\nsubstituters =\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	all := files{}
	names, err := filepath.Glob(work + "/root/nix/store/*.drv")
	if err != nil || len(names) < 10 {
		t.Fatalf("%d derivations, %v", len(names), err)
	}
	for _, name := range names {
		if all["/nix/store/"+filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// find returns the path of the derivation with a name.
func (f files) find(t *testing.T, name string) string {
	t.Helper()
	for path := range f {
		if got, err := drv.Name(path); err == nil && got == name {
			return path
		}
	}
	t.Fatalf("no derivation %s", name)
	return ""
}

// TestRealNix reads what the real Nix wrote: the same bytes come back, and every path is what Nix says. go-nix agrees where it can.
func TestRealNix(t *testing.T) {
	all := instantiate(t)
	kinds := map[string]drv.Kind{
		"two": drv.InputAddressed, "multi": drv.InputAddressed, "structured": drv.InputAddressed, "fixed": drv.Fixed, "fixed-sha1": drv.Fixed,
		"fetched": drv.Fixed, "float": drv.ContentAddressed, "caleaf": drv.ContentAddressed, "leaf": drv.Deferred,
	}
	for path, data := range all {
		d, err := drv.Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if got := d.Encode(); !bytes.Equal(got, data) {
			t.Errorf("%s comes back as\n%s\nnot\n%s", path, got, data)
		}
		g, err := drv.Load(path, all.read)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		name, _ := drv.Name(path)
		if want, ok := kinds[name]; ok && d.Kind() != want {
			t.Errorf("%s is of kind %d, not %d", name, d.Kind(), want)
		}
		delete(kinds, name)
		if at, err := d.Path("/nix/store", name); err != nil || at.String() != path {
			t.Errorf("path %s, %v; want %s", at, err, path)
		}
		if d.Kind() == drv.InputAddressed || d.Kind() == drv.Fixed {
			agrees(t, all, g, path)
		}
	}
	if len(kinds) > 0 {
		t.Errorf("not found: %v", kinds)
	}
}

// agrees compares with go-nix.
func agrees(t *testing.T, all files, g *drv.Graph, top string) {
	t.Helper()
	known := map[string]string{}
	for _, path := range g.Paths() {
		theirs, err := gonix.ReadDerivation(bytes.NewReader(all[path]))
		if err != nil {
			t.Logf("go-nix does not read %s: %v", path, err)
			return
		}
		if path == top {
			outputs, err := theirs.CalculateOutputPaths(known)
			if err != nil {
				t.Logf("go-nix does not compute %s: %v", path, err)
				return
			}
			for _, o := range g.Derivation(path).Outputs {
				if outputs[o.Name] != o.Path {
					t.Errorf("%s: go-nix computes %s for %s, not %s", path, outputs[o.Name], o.Name, o.Path)
				}
			}
			return
		}
		if known[path], err = theirs.CalculateDrvReplacement(known); err != nil {
			t.Logf("go-nix does not compute %s: %v", path, err)
			return
		}
	}
}

// TestRealisationID is the id under which Nix 2.8 wrote a realisation of this derivation into a binary cache; see package realisation.
func TestRealisationID(t *testing.T) {
	const path = "/nix/store/cxapax013ljc9zkknsq4w7lw40isjvn8-self.drv"
	data, err := os.ReadFile("testdata/cxapax013ljc9zkknsq4w7lw40isjvn8-self.drv")
	if err != nil {
		t.Fatal(err)
	}
	g, err := drv.Load(path, files{path: data}.read)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := g.RealisationID(path).Hex(), "7a874b52abf1cc74836c3a9e3268b4c3694123b222c46400820169ed0544324b"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestLies changes files as somebody would who wants others to build or get something else.
func TestLies(t *testing.T) {
	all := instantiate(t)
	for _, tt := range []struct {
		name string
		of   string // derivation that is loaded
		edit func(all files, path string) string
		want string
	}{
		{"a changed script", "two", func(all files, path string) string {
			all[path] = bytes.Replace(all[path], []byte("set -eu"), []byte("set -xu"), 1)
			return path
		}, "derivation is not what its path says"},
		{"a changed script of an input", "two", func(all files, path string) string {
			in := all.find(t, "multi")
			all[in] = bytes.Replace(all[in], []byte("set -eu"), []byte("set -xu"), 1)
			return path
		}, "derivation is not what its path says"},
		{"an output elsewhere, at the right path", "two", func(all files, path string) string {
			d, _ := drv.Parse(all[path])
			other, _ := drv.Parse(all[all.find(t, "structured")])
			d.Outputs[0].Path = other.Outputs[0].Path
			return all.put(t, d, "two")
		}, "output out of /nix/store/"},
		{"a fixed output elsewhere", "fixed", func(all files, path string) string {
			d, _ := drv.Parse(all[path])
			d.Outputs[0].Hash = strings.Repeat("0", 64)
			return all.put(t, d, "fixed")
		}, "output out of /nix/store/"},
		{"an output that an input does not have", "two", func(all files, path string) string {
			d, _ := drv.Parse(all[path])
			for i := range d.Inputs {
				d.Inputs[i].Outputs = []string{"nope"}
			}
			return all.put(t, d, "two")
		}, `needs the output "nope"`},
		{"outputs of two kinds", "multi", func(all files, path string) string {
			d, _ := drv.Parse(all[path])
			d.Outputs[0].Algo, d.Outputs[0].Path = "r:sha256", ""
			return all.put(t, d, "multi")
		}, "has outputs of several kinds"},
		{"a missing input", "two", func(all files, path string) string {
			delete(all, all.find(t, "multi"))
			return path
		}, "file does not exist"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mine := files{}
			for path, data := range all {
				mine[path] = bytes.Clone(data)
			}
			_, err := drv.Load(tt.edit(mine, mine.find(t, tt.of)), mine.read)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if _, ok := errors.AsType[*drv.PathError](err); strings.Contains(tt.want, "output out") && !ok {
				t.Errorf("%T is no PathError", err)
			}
		})
	}
}

// put writes a derivation at the path that it belongs at.
func (f files) put(t *testing.T, d *drv.Derivation, name string) string {
	t.Helper()
	at, err := d.Path("/nix/store", name)
	if err != nil {
		t.Fatal(err)
	}
	f[at.String()] = d.Encode()
	return at.String()
}

const minimal = `Derive([("out","","r:sha256","")],[],[],"x86_64-linux","/bin/sh",["-c","echo \"hi\"\n\t\\"],[("name","x")])`

// dynamic is of the form that github.com/NixOS/nix writes for inputs that are outputs of outputs.
const dynamic = `DrvWithVersion("xp-dyn-drv",[("out","","r:sha256","")],[("/nix/store/cxapax013ljc9zkknsq4w7lw40isjvn8-self.drv",(["out"],[("out",["bin","out"])]))],[],"x86_64-linux","/bin/sh",[],[])`

func TestParse(t *testing.T) {
	for _, text := range []string{minimal, dynamic} {
		d, err := drv.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(text, string(d.Encode())); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	d, err := drv.Parse([]byte(dynamic))
	want := []drv.Input{{
		Path: "/nix/store/cxapax013ljc9zkknsq4w7lw40isjvn8-self.drv", Outputs: []string{"out"},
		Dynamic: []drv.Input{{Path: "out", Outputs: []string{"bin", "out"}}},
	}}
	if diff := cmp.Diff(want, d.Inputs); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", `at byte 0: want "Derive("`},
		{"more behind", minimal + "\n", "there is more behind the derivation"},
		{"cut", minimal[:60], "the file ends within a string"},
		{"raw newline", strings.Replace(minimal, `\n`, "\n", 1), `character '\n' must be escaped`},
		{"odd escape", strings.Replace(minimal, `\n`, `\x`, 1), "no such escape"},
		{"no outputs", strings.Replace(minimal, `("out","","r:sha256","")`, "", 1), "it has no outputs"},
		{"variable twice", strings.Replace(minimal, `("name","x")`, `("name","x"),("name","y")`, 1), `its variables hold "name" twice`},
		{"out of order", strings.Replace(minimal, `("name","x")`, `("name","x"),("a","y")`, 1), "its variables are not sorted"},
		{"source elsewhere", strings.Replace(minimal, "[],[],", `[],["/etc/passwd"],`, 1), "is no store path"},
		{"input is no derivation", strings.Replace(minimal, "[],[],", `[("/nix/store/cxapax013ljc9zkknsq4w7lw40isjvn8-self",["out"])],[],`, 1), "is no derivation"},
		{"no output wanted", strings.Replace(minimal, "[],[],", `[("/nix/store/cxapax013ljc9zkknsq4w7lw40isjvn8-self.drv",[])],[],`, 1), "no output of input"},
		{"output climbs", strings.Replace(minimal, `("out"`, `("../x"`, 1), `"../x" is no name of an output`},
		{"new form of an old one", strings.Replace(minimal, "Derive(", `DrvWithVersion("xp-dyn-drv",`, 1), "is written as Derive"},
		{"another version", strings.Replace(dynamic, "xp-dyn-drv", "xp-dyn-drw", 1), `want "Derive("`},
		{"deep", strings.Replace(dynamic, `["bin","out"]`, strings.Repeat(`(["o"],[("o",`, 20)+`["o"]`+strings.Repeat(`)])`, 20), 1), "go deeper than 16"},
	} {
		_, err := drv.Parse([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	if _, err := drv.Parse(make([]byte, drv.MaxSize+1)); err == nil || !strings.Contains(err.Error(), "over the limit") {
		t.Errorf("a file over the limit: %v", err)
	}
}

// TestGraphBounds loads a derivation that needs itself, which no file at its own path can: it is refused before that is followed.
func TestGraphBounds(t *testing.T) {
	n := 0
	_, err := drv.Load("/nix/store/cxapax013ljc9zkknsq4w7lw40isjvn8-self.drv", func(string) ([]byte, error) {
		n++
		return fmt.Appendf(nil, `Derive([("out","","","")],[("/nix/store/cxapax013ljc9zkknsq4w7lw40isjvn8-self.drv",["out"])],[],"x","y",[],[])`), nil
	})
	if _, ok := errors.AsType[*drv.PathError](err); !ok || n != 1 {
		t.Errorf("after %d reads: %v", n, err)
	}
}

// FuzzParse: what is accepted comes back byte for byte.
func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(dynamic))
	names, _ := filepath.Glob("testdata/*.drv")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := drv.Parse(data)
		if err != nil {
			return
		}
		if got := d.Encode(); !bytes.Equal(got, data) {
			t.Errorf("%q comes back as %q", data, got)
		}
		if refs := d.References(); !slices.IsSorted(refs) {
			t.Errorf("references are not sorted: %q", refs)
		}
		_ = d.Kind()
	})
}
