package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
)

// answer is what a daemon sends: numbers, texts, lists of texts, and bytes as they are.
func answer(parts ...any) []byte {
	var b bytes.Buffer
	e := encoder{bufio.NewWriter(&b)}
	for _, part := range parts {
		switch p := part.(type) {
		case int:
			e.number(uint64(p))
		case string:
			e.text(p)
		case []string:
			e.list(p)
		case []byte:
			e.Write(p)
		}
	}
	e.Flush()
	return b.Bytes()
}

var greetings = map[Kind][]byte{
	Nix:  answer(serverMagic, 1<<8|34, "2.8.0", frameLast),
	Guix: answer(serverMagic, 1<<8|100, frameLast),
}

// deaf is a connection to a daemon that takes everything, and looks at nothing.
type deaf struct{ net.Conn }

func (deaf) Write(p []byte) (int, error) { return len(p), nil }

// serve returns a connection to a daemon that sends data and then closes, whatever it is asked.
func serve(t testing.TB, data []byte) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close() })
	go func() {
		theirs.Write(data)
		theirs.Close()
	}()
	return deaf{ours}
}

const hashPart = "0123456789abcdfghijklmnpqrsvwxyz"

// fileNAR is the object that there is.
var fileNAR = func() []byte {
	var b bytes.Buffer
	w := nar.NewWriter(&b, nar.Limits{})
	w.WriteEntry(nar.Entry{Type: nar.Regular, Size: 5})
	io.WriteString(w, "bytes")
	w.Close()
	return b.Bytes()
}()

func TestHostile(t *testing.T) {
	ctx := t.Context()
	object := func(c *Client) string { return c.Dir() + "/" + hashPart + "-x" }
	isValid := func(c *Client) error { _, err := c.IsValid(ctx, object(c)); return err }
	pathInfo := func(c *Client) error { _, err := c.PathInfo(ctx, object(c)); return err }
	byHash := func(c *Client) error { _, err := c.PathFromHashPart(ctx, hashPart); return err }
	outputs := func(c *Client) error { _, err := c.Outputs(ctx, object(c)+".drv"); return err }
	read := func(c *Client) error { _, err := c.NAR(ctx, object(c), io.Discard, nar.Limits{}); return err }
	add := func(c *Client) error {
		_, err := c.AddSource(ctx, "x", bytes.NewReader(fileNAR), nar.Limits{})
		return err
	}
	addText := func(c *Client) error { _, err := c.AddText(ctx, "x", []byte("text"), nil); return err }
	realised := func(c *Client) error { _, err := c.Realisation(ctx, "sha256:0!out"); return err }
	build := func(c *Client) error { return c.Build(ctx, []string{object(c)}, Normal) }

	hash := digest.Of(fileNAR).Hex()
	nix, guix := storepath.Nix+"/"+hashPart+"-x", storepath.Guix+"/"+hashPart+"-x"
	nixInfo := answer("", hash, []string{}, 1, len(fileNAR), 0, []string{}, "")
	guixInfo := answer("", hash, []string{}, 1, len(fileNAR))
	other := bytes.Replace(fileNAR, []byte("bytes"), []byte("other"), 1)
	exported := answer(fileNAR, exportMagic, guix, []string{}, "", 0)
	many := make([]string, maxFields+1)

	for _, test := range []struct {
		name string
		kind Kind
		data []byte
		ask  func(*Client) error
		want string // in the error; empty: there is none
		goes bool   // the connection goes on
	}{
		{"an honest answer", Nix, answer(frameLast, 1), isValid, "", true},
		{"two realisations", Nix, answer(frameLast, 2, "{}", "{}"), realised, "more than 1", false},
		{"a realisation that is too long", Nix, answer(frameLast, 1, maxText+1), realised, "more than 1048576", false},
		{"a realisation of Guix", Guix, nil, realised, "has no such request", true},
		{"nothing", Nix, nil, isValid, "unexpected EOF", false},
		{"a cut number", Nix, answer(frameLast, []byte{1, 0, 0}), isValid, "unexpected EOF", false},
		{"a flag of 2", Nix, answer(frameLast, 2), isValid, "flag", false},
		{"an unknown frame", Nix, answer(0x1234, frameLast, 1), isValid, "0x1234", false},
		{"a frame that wants data", Nix, answer(0x64617461, 8), isValid, "0x64617461", false},
		{"data where none is due", Nix, answer(frameWrite, "data", frameLast, 1), isValid, "0x64617416", false},
		{"an activity of Guix", Guix, answer(frameStopActivity, 1, frameLast, 1), isValid, "0x53544f50", false},
		{"a message of all memory", Nix, answer(frameNext, -1), isValid, "more than 1048576", false},
		{"a message of 2^63 bytes", Nix, answer(frameNext, -1<<63), isValid, "more than 1048576", false},
		{"a message that is too long", Nix, answer(frameNext, maxText+1, make([]byte, maxText+8)), isValid, "more than 1048576", false},
		{"a message that is cut", Nix, answer(frameNext, 100, []byte("short")), isValid, "unexpected EOF", false},
		{"padding that is not zero", Nix, answer(frameNext, 1, []byte("x\x00\x00\x00\x00\x00\x00\x01"), frameLast, 1), isValid, "padding", false},
		{"padding that is cut", Nix, answer(frameNext, 1, []byte("x\x00")), isValid, "unexpected EOF", false},
		{"an activity", Nix, answer(frameStartActivity, 1, 3, 105, "building", 2, 0, 7, 1, "text", 0, frameResult, 1, 101, 1, 1, "line",
			frameStopActivity, 1, frameLast, 1), isValid, "", true},
		{"a field of an unknown kind", Nix, answer(frameResult, 1, 101, 1, 2, "line"), isValid, "kind 2", false},
		{"too many fields", Nix, answer(frameResult, 1, 101, many), isValid, "more than 64", false},

		{"an error", Nix, answer(frameError, "Error", 0, "", "\x1b[31;1mno\x1b[0m\nmore", 0, 1, 0, "trace"), isValid, "daemon says: no more", true},
		{"an error of Guix", Guix, answer(frameError, "no", 1), isValid, "daemon says: no", true},
		{"an error that moves the cursor", Guix, answer(frameError, "no\x1b]0;title\x07", 1), isValid, "no\uFFFD]0;title\uFFFD", true},
		{"an error that is something else", Nix, answer(frameError, "Sorrow", 0, "", "no", 0, 0), isValid, "Sorrow", false},
		{"an error with a position", Nix, answer(frameError, "Error", 0, "", "no", 1, 0), isValid, "position", false},
		{"an error with endless traces", Nix, answer(frameError, "Error", 0, "", "no", 0, -1), isValid, "more than 1024", false},
		{"an error that is cut", Nix, answer(frameError, "Error", 0, "", "no", 0), isValid, "unexpected EOF", false},

		{"not there", Nix, answer(frameLast, 0), pathInfo, "has no", true},
		{"not there, with Guix", Guix, answer(frameError, "no", 1, frameLast, 0), pathInfo, "has no", true},
		{"an error about what is there", Guix, answer(frameError, "no", 1, frameLast, 1), pathInfo, "daemon says", true},
		{"info", Nix, answer(frameLast, 1, nixInfo), pathInfo, "", true},
		{"info of Guix", Guix, answer(frameLast, guixInfo), pathInfo, "", true},
		{"a hash that is none", Nix, answer(frameLast, 1, "", strings.Repeat("A", 64)), pathInfo, "hash", false},
		{"a hash of zeros", Nix, answer(frameLast, 1, "", strings.Repeat("0", 64), []string{}, 1, 8, 0, []string{}, ""), pathInfo, "hash", false},
		{"a deriver elsewhere", Nix, answer(frameLast, 1, "/etc/passwd"), pathInfo, "store path", false},
		{"a deriver in the other store", Nix, answer(frameLast, 1, guix), pathInfo, "is not in /nix/store", false},
		{"a reference that is nothing", Nix, answer(frameLast, 1, "", hash, []string{""}), pathInfo, "missing", false},
		{"a reference of 5 KiB", Nix, answer(frameLast, 1, "", hash, []string{strings.Repeat("x", 5<<10)}), pathInfo, "more than 4096", false},
		{"endless references", Nix, answer(frameLast, 1, "", hash, -1), pathInfo, "more than 65536", false},
		{"a negative size", Nix, answer(frameLast, 1, "", hash, []string{}, 1, -1), pathInfo, "a number is", false},
		{"endless signatures", Nix, answer(frameLast, 1, "", hash, []string{}, 1, 1, 0, 1<<20), pathInfo, "more than 65536", false},

		{"another path", Nix, answer(frameLast, storepath.Nix+"/"+strings.Repeat("0", 32)+"-x"), byHash, "asked for", false},
		{"an output twice", Nix, answer(frameLast, 2, "out", nix, "out", nix), outputs, "twice", false},
		{"an output with a bad name", Nix, answer(frameLast, 1, "../out", nix), outputs, "no name", false},
		{"an output that is not known", Nix, answer(frameLast, 1, "out", ""), outputs, "", true},
		{"names without paths", Guix, answer(frameLast, []string{"out"}, frameLast, []string{}), outputs, "no path", true},
		{"paths without names", Guix, answer(frameLast, []string{}, frameLast, []string{guix}), outputs, "0 names", true},

		{"an object", Nix, answer(frameLast, 1, nixInfo, frameLast, fileNAR), read, "", true},
		{"another object", Nix, answer(frameLast, 1, nixInfo, frameLast, other), read, "but must be", true},
		{"an object that is cut", Nix, answer(frameLast, 1, nixInfo, frameLast, fileNAR[:len(fileNAR)-8]), read, "too early", false},
		{"an error in place of an object", Nix, answer(frameLast, 1, nixInfo, frameLast, frameError, "Error", 0, "", "no", 0, 0), read, "nar", false},
		{"an export", Guix, answer(frameLast, guixInfo, frameWrite, string(exported), frameLast, 1), read, "", true},
		{"an export in pieces", Guix, answer(frameLast, guixInfo, frameWrite, string(exported[:13]), frameNext, "news", frameWrite, "",
			frameWrite, string(exported[13:]), frameLast, 1), read, "", true},
		{"an export of something else", Guix, answer(frameLast, guixInfo, frameWrite,
			string(answer(fileNAR, exportMagic, guix+"y", []string{}, "", 0)), frameLast, 1), read, "asked for", false},
		{"an export of other bytes", Guix, answer(frameLast, guixInfo, frameWrite,
			string(answer(other, exportMagic, guix, []string{}, "", 0)), frameLast, 1), read, "but must be", true},
		{"an export with a signature", Guix, answer(frameLast, guixInfo, frameWrite,
			string(answer(fileNAR, exportMagic, guix, []string{}, "", 1, "sig")), frameLast, 1), read, "signed", false},
		{"an export that goes on", Guix, answer(frameLast, guixInfo, frameWrite, string(exported)+"x", frameLast, 1), read, "behind its end", false},
		{"an export that ends early", Guix, answer(frameLast, guixInfo, frameWrite, string(exported[:40]), frameLast, 1), read, "too early", false},
		{"an export with bad padding", Guix, answer(frameLast, guixInfo, frameWrite, 1, []byte("\x0d\x00\x00\x00\x00\x00\x00\x07")), read, "padding", false},
		{"an export of 2^63 bytes", Guix, answer(frameLast, guixInfo, frameWrite, -1<<63), read, "a number is", false},
		{"an error in an export", Guix, answer(frameLast, guixInfo, frameWrite, string(exported[:40]), frameError, "changed", 1), read, "changed", true},

		{"added elsewhere", Nix, answer(frameLast, nix, nixInfo), add, "its content's name is", true},
		{"added as something else", Nix, answer(frameLast, nix, "", digest.Of(other).Hex(), []string{}, 1, 8, 0, []string{}, ""), add, "but must be", false},
		{"added elsewhere, with Guix", Guix, answer(frameLast, guix), add, "its content's name is", true},
		{"a text elsewhere", Guix, answer(frameLast, guix), addText, "its content's name is", true},
		{"built with a result", Nix, answer(frameLast, 7), build, "sends 7", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := New(ctx, serve(t, append(bytes.Clone(greetings[test.kind]), test.data...)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = test.ask(c)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("error %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			if closed := c.failed() != nil; closed == test.goes {
				t.Errorf("the connection is closed: %t", closed)
			}
		})
	}
}

func TestGreeting(t *testing.T) {
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "EOF"},
		{"a web server", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "no daemon"},
		{"our own words", answer(clientMagic, 1<<8|34), "no daemon"},
		{"Nix 2.3", answer(serverMagic, 1<<8|21, frameLast), "version 1.21"},
		{"version 2", answer(serverMagic, 2<<8|1, frameLast), "version 2.1"},
		{"version 2^63", answer(serverMagic, -1<<63, frameLast), "version"},
		{"a release of all memory", answer(serverMagic, 1<<8|38, -1), "more than 4096"},
		{"an error", answer(serverMagic, 1<<8|100, frameError, "you may not", 1), "greet the store's daemon: the daemon says: you may not"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := New(t.Context(), serve(t, test.data))
			if err == nil {
				c.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

// TestSilent cancels requests to a daemon that neither reads nor answers.
func TestSilent(t *testing.T) {
	for name, ask := range map[string]func(context.Context, *Client) error{
		"query": func(ctx context.Context, c *Client) error {
			_, err := c.IsValid(ctx, c.Dir()+"/"+hashPart+"-x")
			return err
		},
		"add": func(ctx context.Context, c *Client) error {
			_, err := c.AddSource(ctx, "x", bytes.NewReader(fileNAR), nar.Limits{})
			return err
		},
	} {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go func() { // it greets, and is silent
			io.ReadFull(theirs, make([]byte, 8))
			theirs.Write(greetings[Guix][:16])
			io.ReadFull(theirs, make([]byte, 24))
			theirs.Write(greetings[Guix][16:])
		}()
		c, err := New(t.Context(), ours)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := ask(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// recorded is a connection to a daemon that said everything beforehand.
type recorded struct {
	deaf
	said *bytes.Reader
}

func (r recorded) Read(p []byte) (int, error) { return r.said.Read(p) }
func (recorded) Close() error                 { return nil }

// FuzzAnswers has a daemon answer anything.
func FuzzAnswers(f *testing.F) {
	hash := digest.Of(fileNAR).Hex()
	guix := storepath.Guix + "/" + hashPart + "-x"
	for ask := range byte(5) {
		f.Add(ask, answer(greetings[Nix], frameLast, 1, "", hash, []string{}, 1, len(fileNAR), 0, []string{"k:s"}, "", frameLast, fileNAR))
		f.Add(ask, answer(greetings[Guix], frameLast, "", hash, []string{guix}, 1, len(fileNAR), frameWrite,
			string(answer(fileNAR, exportMagic, guix, []string{}, "", 0)), frameLast, 1))
		f.Add(ask, answer(greetings[Nix], frameResult, 1, 101, 1, 1, "line", frameNext, "text", frameError, "Error", 0, "", "no", 0, 1, 0, "trace"))
		f.Add(ask, answer(greetings[Nix], frameLast, 2, "doc", "", "out", storepath.Nix+"/"+hashPart+"-x"))
		f.Add(ask, answer(greetings[Guix], frameLast, []string{"out"}, frameLast, []string{guix}))
	}
	f.Fuzz(func(t *testing.T, ask byte, data []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		ctx := context.Background()
		c, err := New(ctx, recorded{said: bytes.NewReader(data)})
		if err != nil {
			return
		}
		path := c.Dir() + "/" + hashPart + "-x"
		switch ask % 5 {
		case 0:
			c.IsValid(ctx, path)
			c.Realisation(ctx, "sha256:0!out")
		case 1:
			if info, err := c.PathInfo(ctx, path); err == nil && (info.NAR.IsZero() || info.Size < 0 || len(info.References) > maxList) {
				t.Errorf("accepted %+v", info)
			}
		case 2:
			var got bytes.Buffer
			if info, err := c.NAR(ctx, path, &got, nar.Limits{}); err == nil && digest.Of(got.Bytes()) != info.NAR {
				t.Errorf("%q is not %+v", got.Bytes(), info)
			}
		case 3:
			outputs, err := c.Outputs(ctx, path+".drv")
			for name, at := range outputs {
				if err == nil && (storepath.CheckName(name) != nil || at != "" && checkPath(at, c.Dir()) != nil) {
					t.Errorf("accepted %q at %q", name, at)
				}
			}
		case 4:
			c.Build(ctx, []string{path}, Normal)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > uint64(64*len(data)+16<<20) {
			t.Errorf("%d bytes of answers took %d bytes of memory", len(data), used)
		}
	})
}
