package systemd

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
)

// frames joins frames given as kinds and bodies in turn.
func frames(parts ...any) []byte {
	var b bytes.Buffer
	for n := 0; n+1 < len(parts); n += 2 {
		writeFrame(&b, byte(parts[n].(rune)), []byte(parts[n+1].(string)))
	}
	return b.Bytes()
}

func FuzzReadFrame(f *testing.F) {
	f.Add(frames('X', `{"Err":"x"}`))
	f.Add(frames('F', "0", 'D', "data", 'Z', ""))
	f.Add([]byte{'D', 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{'D', 0, 0, 0, 9, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		kind, body, err := readFrame(bytes.NewReader(data), 64)
		if err != nil {
			return
		}
		if len(body) > 64 {
			t.Fatalf("a body of %d bytes", len(body))
		}
		var again bytes.Buffer
		if err := writeFrame(&again, kind, body); err != nil || !bytes.HasPrefix(data, again.Bytes()) {
			t.Errorf("%q became %q, %v", data, again.Bytes(), err)
		}
	})
}

// framesOf reads frames from memory.
func framesOf(data []byte) nextFrame {
	r := bytes.NewReader(data)
	return func(limit int) (byte, []byte, error) { return readFrame(r, limit) }
}

// FuzzOutput hands what a hostile unit sends for an output to a collector.
func FuzzOutput(f *testing.F) {
	f.Add("0", frames('D', "da", 'D', "ta", 'Z', ""))
	f.Add("0", frames('D', strings.Repeat("x", 200), 'Z', ""))
	f.Add("1", frames('D', "data", 'Z', "broken"))
	f.Add("-1", frames('Z', ""))
	f.Add("7", []byte{})
	f.Add("0", frames('X', "{}"))
	outputs := []runner.Output{{Name: "a"}, {Name: "b"}}
	f.Fuzz(func(t *testing.T, index string, data []byte) {
		var got int
		c, err := takeOutput(framesOf(data), []byte(index), outputs, 100, func(_ runner.Output, r io.Reader) error {
			b, err := io.ReadAll(r)
			got = len(b)
			return err
		})
		if got > 100 || c != nil && (err != nil || c.Size != int64(got)) {
			t.Errorf("%d bytes are collected as %+v, %v", got, c, err)
		}
	})
}

func TestOutput(t *testing.T) {
	full := errors.New("the store is full")
	for name, c := range map[string]struct {
		index string
		data  []byte
		err   error // of the collector
		size  int64 // -1: none is collected
		want  string
	}{
		"whole":         {"0", frames('D', "da", 'D', "ta", 'Z', ""), nil, 4, ""},
		"empty":         {"0", frames('Z', ""), nil, 0, ""},
		"not whole":     {"0", frames('D', "da", 'Z', "a socket cannot be archived"), nil, -1, ""},
		"too much":      {"0", frames('D', "12345678901", 'Z', ""), nil, -1, "collect output a: the unit sends more than it may"},
		"no such index": {"1", nil, nil, -1, `read control socket: output "1" does not exist`},
		"not an index":  {"x", nil, nil, -1, `read control socket: output "x" does not exist`},
		"cut off":       {"0", frames('D', "da"), nil, -1, "collect output a: unexpected EOF"},
		"another frame": {"0", frames('X', "{}"), nil, -1, `collect output a: unexpected frame 'X'`},
		"collector":     {"0", frames('D', "da", 'Z', ""), full, -1, "collect output a: the store is full"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := takeOutput(framesOf(c.data), []byte(c.index), []runner.Output{{Name: "a"}}, 10, func(_ runner.Output, r io.Reader) error {
				if c.err != nil {
					return c.err
				}
				_, err := io.Copy(io.Discard, r)
				return err
			})
			if text := errorText(err); text != c.want {
				t.Errorf("got %q, want %q", text, c.want)
			}
			if size := int64(-1); got != nil && got.Size != c.size || got == nil && size != c.size {
				t.Errorf("got %+v, want size %d", got, c.size)
			}
		})
	}
}

func TestOutcomeKeepsErrors(t *testing.T) {
	for _, err := range []error{
		nil, errors.New("text"), &runner.SetupError{Act: "make file system", Err: errors.New("refused"), Cure: "allow it"},
	} {
		var o, back outcome
		o.setError(err)
		body, jerr := json.Marshal(o)
		if jerr == nil {
			jerr = json.Unmarshal(body, &back)
		}
		if jerr != nil {
			t.Fatal(jerr)
		}
		got := back.error()
		if errorText(got) != errorText(err) {
			t.Errorf("got %v, want %v", got, err)
		}
		s, ok := errors.AsType[*runner.SetupError](got)
		if want, is := errors.AsType[*runner.SetupError](err); ok != is || ok && s.Hint() != want.Hint() {
			t.Errorf("got %#v, want %#v", got, err)
		}
	}
}

func TestReceiveOrder(t *testing.T) {
	for name, c := range map[string]struct {
		order order
		files int
		ok    bool
	}{
		"nothing":         {order{}, 0, true},
		"exchange":        {order{Exchange: true}, 1, true},
		"too many":        {order{Exchange: true}, 2, false},
		"exchange is not": {order{Exchange: true}, 0, false},
		"none is due":     {order{}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			body, err := json.Marshal(c.order)
			if err != nil {
				t.Fatal(err)
			}
			var files []*os.File
			for range c.files {
				f, err := os.Open(os.DevNull)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				files = append(files, f)
			}
			if _, err := receive(body, files); (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestReport(t *testing.T) {
	name := filepath.Join(t.TempDir(), "effects.json")
	if _, err := readReport(name); err == nil {
		t.Error("a report that is not there is read")
	}
	want := Report{Systemd: "252", Boot: "b", Effects: []Effect{{Name: "memory", Holds: true, Seen: "x"}}}
	if err := writeReport(name, want); err != nil {
		t.Fatal(err)
	}
	got, err := readReport(name)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got.complete() {
		t.Error("one effect is not all")
	}
	if left, _ := filepath.Glob(name + "-*"); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

func TestFindings(t *testing.T) {
	got := parseFindings([]byte("noise\n{\"Name\":\"a\",\"Holds\":true,\"Seen\":\"s\"}\n{}\n{\"Name\":"))
	if diff := cmp.Diff([]finding{{"a", true, "s"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
