package source

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ignoreTree is what the patterns are tried on.
var ignoreTree = []string{"a.o", "b.c", "build/x", "build/y.o", "src/build/z", "src/a.o", "src/deep/er/a.o", "src/deep/er/b", "tmp", "docs/tmp/x", "docs/x.txt", "#hash", "!bang", "a*b", "foo/bar/baz", "foo/baz"}

var ignoreCases = []struct {
	name     string
	patterns []string
	left     []string // what is left out
}{
	{"none", nil, nil},
	{"name anywhere", []string{"*.o"}, []string{"a.o", "build/y.o", "src/a.o", "src/deep/er/a.o"}},
	{"anchored", []string{"/build"}, []string{"build/x", "build/y.o"}},
	{"inner slash anchors", []string{"src/build"}, []string{"src/build/z"}},
	{"directory anywhere", []string{"build/"}, []string{"build/x", "build/y.o", "src/build/z"}},
	{"only directories", []string{"tmp/"}, []string{"docs/tmp/x"}},
	{"star does not cross a slash", []string{"src/*/a.o"}, nil},
	{"two stars do", []string{"src/**/a.o"}, []string{"src/a.o", "src/deep/er/a.o"}},
	{"two stars at the beginning", []string{"**/er/b"}, []string{"src/deep/er/b"}},
	{"two stars at the end", []string{"src/**"}, []string{"src/build/z", "src/a.o", "src/deep/er/a.o", "src/deep/er/b"}},
	{"two stars in the middle, twice", []string{"**/deep/**/b"}, []string{"src/deep/er/b"}},
	{"taken back", []string{"*.o", "!a.o"}, []string{"build/y.o"}},
	{"taken back and again", []string{"*.o", "!a.o", "/a.o"}, []string{"a.o", "build/y.o"}},
	{"not below what is left out", []string{"build", "!build/x"}, []string{"build/x", "build/y.o", "src/build/z"}},
	{"children taken back", []string{"/build/*", "!/build/x"}, []string{"build/y.o"}},
	{"question mark and class", []string{"?.[!o]"}, []string{"b.c"}},
	{"comment and escapes", []string{"# comment", `\#hash`, `\!bang`, `a\*b`}, []string{"#hash", "!bang", "a*b"}},
	{"everything but", []string{"*", "!b.c"}, slices.DeleteFunc(slices.Clone(ignoreTree), func(s string) bool { return s == "b.c" })},
}

func TestIgnore(t *testing.T) {
	for _, tt := range ignoreCases {
		t.Run(tt.name, func(t *testing.T) {
			ig, err := ParseIgnore(tt.patterns)
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, file := range ignoreTree {
				if ignoredFile(ig, file) {
					left = append(left, file)
				}
			}
			if diff := cmp.Diff(tt.left, left); diff != "" {
				t.Errorf("left out (-want +got):\n%s", diff)
			}
		})
	}
}

// ignoredFile asks for each directory on the way first, as a walk does.
func ignoredFile(ig Ignore, file string) bool {
	for i, c := range file {
		if c == '/' && ig.Match(file[:i], true) {
			return true
		}
	}
	return ig.Match(file, false)
}

// TestIgnoreLikeGit compares the table with git itself.
func TestIgnoreLikeGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("cannot run here: git is not installed")
	}
	content := map[string]string{}
	for _, f := range ignoreTree {
		content[f] = ""
	}
	dir := files(t, content)
	git(t, dir, "init", "-q")
	for _, tt := range ignoreCases {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, ".git/info/exclude"), []byte(strings.Join(tt.patterns, "\n")+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("git", "ls-files", "-z", "--others", "--ignored", "--exclude-standard")
			cmd.Dir = dir
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			left := strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
			slices.Sort(left)
			want := slices.Sorted(slices.Values(tt.left))
			if diff := cmp.Diff(want, slices.Sorted(slices.Values(left))); diff != "" {
				t.Errorf("git leaves out (-ours +git's):\n%s", diff)
			}
		})
	}
}

func TestIgnoreRefused(t *testing.T) {
	for _, p := range []string{"[a", `a\`, "/", "!", "!/", "a//b"} {
		if _, err := ParseIgnore([]string{p}); err == nil {
			t.Errorf("pattern %q is accepted", p)
		}
	}
}

func TestGitDirectoryIsAlwaysLeftOut(t *testing.T) {
	ig, err := ParseIgnore([]string{"!.git", "!.git/"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".git", "sub/.git"} {
		if !ig.Match(name, true) || !ig.Match(name, false) {
			t.Errorf("%s is not left out", name)
		}
	}
}

// FuzzIgnore: no pattern takes long or ends in anything but a decision.
func FuzzIgnore(f *testing.F) {
	f.Add("**/a/**/b", "a/b/c/a/b")
	f.Add("!*.[ch]", "x.c")
	f.Add(`\#*?`, "#x")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		ig, err := ParseIgnore([]string{pattern})
		if err == nil {
			ig.Match(name, false)
			ig.Match(name, true)
		}
	})
}
