package nix

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest/nar"
)

// script runs a script of the flake as its builders do.
func script(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, "nix", name))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{path}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// TestModulesScript makes the dependencies as Nix does where there is a network: they have the digest that is pinned.
func TestModulesScript(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("cannot run here: there is no go: " + err.Error())
	}
	data, err := os.ReadFile(filepath.Join(root, "nix/pins.json"))
	if err != nil {
		t.Fatal(err)
	}
	var p pins
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Cleanup(func() { makeWritable(dir) })
	for _, name := range []string{"go.mod", "go.sum"} {
		copyFile(t, filepath.Join(root, name), filepath.Join(dir, name))
	}
	out := filepath.Join(dir, "out")
	proxy := "GOPROXY=file://" + goEnv(t, "GOMODCACHE") + "/cache/download," + goEnv(t, "GOPROXY")
	script(t, dir, []string{proxy}, "modules.sh", out)
	got, _, err := nar.Hash(t.Context(), out, nar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got.SRI() != p.Modules {
		t.Errorf("nix/modules.sh made %s, pinned is %s", got.SRI(), p.Modules)
	}
}

// TestToolchainScript unpacks a small zip that is made like those of golang.org/toolchain.
func TestToolchainScript(t *testing.T) {
	if _, err := exec.LookPath("unzip"); err != nil {
		t.Skip("cannot run here: there is no unzip: " + err.Error())
	}
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, name := range []string{"VERSION", "bin/go", "lib/wasm/go_js_wasm_exec", "lib/time/zone.zip", "pkg/tool/linux_amd64/link", "src/_go.mod", "src/make.bat"} {
		w, err := z.Create("golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "zip"), buf.Bytes(), 0o644)
	out := filepath.Join(dir, "out")
	script(t, dir, nil, "toolchain.sh", filepath.Join(dir, "zip"), out)
	got := map[string]fs.FileMode{}
	err := filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(out, path)
		got[rel] = info.Mode().Perm()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]fs.FileMode{
		"VERSION": 0o644, "bin/go": 0o755, "lib/wasm/go_js_wasm_exec": 0o755, "lib/time/zone.zip": 0o644, "pkg/tool/linux_amd64/link": 0o755,
		"src/go.mod": 0o644, "src/make.bat": 0o644,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files and modes (-want +got):\n%s", diff)
	}
}
