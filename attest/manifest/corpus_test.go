package manifest

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the messages that testdata/refused expects anew; review them")

var bom = []byte("\xef\xbb\xbf")

// TestRefused reads every file of testdata/refused. Its first lines say the message, "# want: ", and the hint, "# hint: ".
func TestRefused(t *testing.T) {
	files := corpus(t, "refused")
	if len(files) < 60 {
		t.Fatalf("%d files; want at least 60", len(files))
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			src := readFile(t, name)
			doc, err := ReadYAML(src)
			if err == nil {
				t.Fatalf("accepted as %s %q", doc.DocumentKind(), doc.Head().Name)
			}
			got := expectation(err)
			if *update {
				rewrite(t, name, src, got)
				return
			}
			if diff := cmp.Diff(header(src), got); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

// expectation writes an error and its hint as a corpus file expects them.
func expectation(err error) string {
	var b strings.Builder
	for line := range strings.SplitSeq(err.Error(), "\n") {
		b.WriteString("# want: " + line + "\n")
	}
	if h, ok := err.(interface{ Hint() string }); ok && h.Hint() != "" {
		for line := range strings.SplitSeq(h.Hint(), "\n") {
			b.WriteString("# hint: " + line + "\n")
		}
	}
	return b.String()
}

// header returns the first lines that say what is expected.
func header(src []byte) string {
	var b strings.Builder
	for line := range bytes.Lines(bytes.TrimPrefix(src, bom)) {
		if !bytes.HasPrefix(line, []byte("# want: ")) && !bytes.HasPrefix(line, []byte("# hint: ")) {
			break
		}
		b.Write(line)
	}
	return b.String()
}

func rewrite(t *testing.T, name string, src []byte, want string) {
	mark := []byte(nil)
	if bytes.HasPrefix(src, bom) {
		mark = bom
	}
	body := bytes.TrimPrefix(src, mark)[len(header(src)):]
	if err := os.WriteFile(name, bytes.Join([][]byte{mark, []byte(want), body}, nil), 0o644); err != nil {
		t.Fatal(err)
	}
}

func corpus(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus in testdata/%s: %v", dir, err)
	}
	return files
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	src, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// TestAccepted reads every file of testdata/accepted, and checks that its canonical form, its YAML and its envelope each
// give the same document again.
func TestAccepted(t *testing.T) {
	for _, name := range corpus(t, "accepted") {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			doc, err := ReadYAML(readFile(t, name))
			if err != nil {
				t.Fatal(err)
			}
			checkRoundTrips(t, doc)
		})
	}
}

// checkRoundTrips checks that every way out of a document leads back to it.
func checkRoundTrips(t *testing.T, doc Document) {
	t.Helper()
	payload, err := Canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := ReadJSON(payload)
	if err != nil {
		t.Fatalf("read canonical form: %v\n%s", err, payload)
	}
	if again, err := Canonical(bare); err != nil || !bytes.Equal(again, payload) {
		t.Errorf("canonical form of canonical form: %v\n%s\n%s", err, payload, again)
	}
	if diff := cmp.Diff(unsigned(doc), bare); diff != "" {
		t.Errorf("canonical form reads differently (-want +got):\n%s", diff)
	}
	text, err := WriteYAML(doc)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ReadYAML(text)
	if err != nil {
		t.Fatalf("read written YAML: %v\n%s", err, text)
	}
	if diff := cmp.Diff(doc, again); diff != "" {
		t.Errorf("written YAML reads differently (-want +got):\n%s", diff)
	}
}
