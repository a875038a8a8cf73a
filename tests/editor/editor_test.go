// Package editor shows that the schemas of documents do in an editor what they are for: yaml-language-server, which most editors ask about
// YAML, accepts the documents of the repository and points at what is wrong with others.
package editor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"arch.network/attest/manifest"
)

const good = `# yaml-language-server: $schema=job.json
apiVersion: arch.network/v1
kind: Job
metadata:
  name: wordcount
  created: "2026-01-01T00:00:00Z"
spec:
  image: tree:wordcount.wasm#sha256-FqGvuSYAM+vCav8UgIxySVB0eBRXPn+YEXYzCUXAcUo=
  runtime: wasm
  resources: {memory: 16Mi, gas: 100000000}
  inputs: {text: "tree:text#sha256-tlC44ZUHP3wAc8OVqMiLlJXWDwRXSEB09c1aqsitv8o="}
  outputs: {counts: store}
  timeout: 30s
`

func TestEditor(t *testing.T) {
	dir := t.TempDir()
	for _, kind := range manifest.Kinds() {
		schema, err := manifest.Schema(kind)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, strings.ToLower(kind)+".json"), schema, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, dir)
	t.Run("good", func(t *testing.T) {
		if _, got := s.open(t, good); len(got) > 0 {
			t.Errorf("it complains about a good document: %v", got)
		}
	})
	for _, tt := range []struct{ name, old, new, at, says string }{
		{"a value that is none of those there are", "runtime: wasm", "runtime: wasn", "9:12-9:16", `"wasm"`},
		{"a field that there is not", "timeout: 30s", "timeuot: 30s", "13:3-13:10", "timeuot"},
		{"a type that is another", "gas: 100000000", `gas: "many"`, "10:34-10:40", `"integer"`},
		{"an image that is not pinned", "wordcount.wasm#sha256-FqGvuSYAM+vCav8UgIxySVB0eBRXPn+YEXYzCUXAcUo=", "wordcount.wasm", "8:10-8:29", "pattern"},
		{"no image", "  image: tree:wordcount.wasm#sha256-FqGvuSYAM+vCav8UgIxySVB0eBRXPn+YEXYzCUXAcUo=\n", "", "7:1-7:5", `"image"`},
		{"another version", "arch.network/v1", "arch.network/v9", "2:13-2:28", `"arch.network/v1"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(good, tt.old) {
				t.Fatalf("no %q", tt.old)
			}
			_, got := s.open(t, strings.Replace(good, tt.old, tt.new, 1))
			if !slices.ContainsFunc(got, func(d diagnostic) bool { return d.at() == tt.at && strings.Contains(d.Message, tt.says) }) {
				t.Errorf("it says %v, not %q at %s", got, tt.says, tt.at)
			}
		})
	}
	t.Run("examples", func(t *testing.T) {
		files, err := filepath.Glob("../examples/*/*.yaml")
		if err != nil {
			t.Fatal(err)
		}
		read := 0
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := manifest.ReadYAML(text)
			if err != nil { // it is of another program, or shows a mistake
				continue
			}
			read++
			line := "# yaml-language-server: $schema=" + strings.ToLower(doc.DocumentKind()) + ".json\n"
			if _, got := s.open(t, line+string(text)); len(got) > 0 {
				t.Errorf("%s: %v", file, got)
			}
		}
		if read < 5 {
			t.Errorf("only %d of %q are documents", read, files)
		}
	})
	t.Run("explains", func(t *testing.T) {
		uri, _ := s.open(t, good)
		var hover struct{ Contents struct{ Value string } }
		s.call(t, "textDocument/hover", map[string]any{"textDocument": map[string]string{"uri": uri}, "position": position{8, 4}}, &hover)
		if want := "runtime says how the image is run."; !strings.Contains(hover.Contents.Value, want) {
			t.Errorf("it tells %q about a field, not %q", hover.Contents.Value, want)
		}
	})
}

// install returns the directory of the language server that package-lock.json pins, which is fetched once and kept.
func install(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("cannot run here: " + err.Error())
		}
	}
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(cache, "arch-editor", fmt.Sprintf("%.16x", sha256.Sum256(lock)))
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(kept), "new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	npm := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("fetch yaml-language-server: %v\n%s", err, out)
	}
	if err := os.Rename(dir, kept); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return kept
}

// server is a language server, spoken to as editors do (Language Server Protocol 3.17).
type server struct {
	dir    string
	in     io.Writer
	out    *bufio.Reader
	last   int // id of a request
	opened int // documents
}

type position struct {
	Line      int `json:"line"`
	Character int `json:"character"`
}

type diagnostic struct {
	Range   struct{ Start, End position }
	Message string
}

// at tells lines and columns from 1.
func (d diagnostic) at() string {
	return fmt.Sprintf("%d:%d-%d:%d", d.Range.Start.Line+1, d.Range.Start.Character+1, d.Range.End.Line+1, d.Range.End.Character+1)
}

type message struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  any             `json:"result,omitempty"`
}

// start starts the server for documents in dir.
func start(t *testing.T, dir string) *server {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := exec.CommandContext(ctx, "node", filepath.Join(install(t), "node_modules/yaml-language-server/bin/yaml-language-server"), "--stdio")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = c.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s", &stderr)
		}
	})
	s := &server{dir: dir, in: in, out: bufio.NewReader(out)}
	s.call(t, "initialize", map[string]any{
		"processId": os.Getpid(), "rootUri": "file://" + dir,
		"capabilities": map[string]any{"workspace": map[string]any{"configuration": true}},
	}, nil)
	s.send(t, message{Method: "initialized", Params: map[string]any{}})
	return s
}

// open opens a new document, and returns what the server says about it.
func (s *server) open(t *testing.T, text string) (uri string, said []diagnostic) {
	t.Helper()
	s.opened++
	uri = fmt.Sprintf("file://%s/%d.yaml", s.dir, s.opened)
	doc := map[string]any{"uri": uri, "languageId": "yaml", "version": 1, "text": text}
	s.send(t, message{Method: "textDocument/didOpen", Params: map[string]any{"textDocument": doc}})
	for {
		m := s.receive(t)
		if m.method != "textDocument/publishDiagnostics" {
			continue
		}
		var about struct {
			URI         string
			Diagnostics []diagnostic
		}
		if err := json.Unmarshal(m.params, &about); err != nil {
			t.Fatal(err)
		}
		if about.URI == uri {
			return uri, about.Diagnostics
		}
	}
}

// call makes a request and waits for its answer.
func (s *server) call(t *testing.T, method string, params, result any) {
	t.Helper()
	s.last++
	id := strconv.Itoa(s.last)
	s.send(t, message{ID: json.RawMessage(id), Method: method, Params: params})
	for {
		m := s.receive(t)
		if m.method != "" || string(m.id) != id {
			continue
		}
		if m.failed != nil {
			t.Fatalf("%s: %s", method, m.failed)
		}
		if result != nil {
			if err := json.Unmarshal(m.result, result); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
}

func (s *server) send(t *testing.T, m message) {
	t.Helper()
	m.Version = "2.0"
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(s.in, "Content-Length: %d\r\n\r\n%s", len(text), text); err != nil {
		t.Fatal(err)
	}
}

// received is a message of the server.
type received struct {
	id, params, result, failed json.RawMessage
	method                     string
}

// receive returns the next message, after answering it if it asks for settings: it is to look nothing up elsewhere.
func (s *server) receive(t *testing.T) received {
	t.Helper()
	head, err := textproto.NewReader(s.out).ReadMIMEHeader()
	if err != nil {
		t.Fatalf("read from the server: %v", err)
	}
	n, err := strconv.Atoi(head.Get("Content-Length"))
	if err != nil || n > 64<<20 {
		t.Fatalf("its message is of %q bytes", head.Get("Content-Length"))
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(s.out, text); err != nil {
		t.Fatal(err)
	}
	var m struct {
		ID, Params, Result, Error json.RawMessage
		Method                    string
	}
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	if m.Method == "workspace/configuration" {
		off := map[string]any{"schemaStore": map[string]any{"enable": false}, "kubernetesCRDStore": map[string]any{"enable": false}, "validate": true, "hover": true}
		s.send(t, message{ID: m.ID, Result: []any{off, map[string]any{}, map[string]any{}, map[string]any{}, map[string]any{}}})
	}
	return received{m.ID, m.Params, m.Result, m.Error, m.Method}
}
