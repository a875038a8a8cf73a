package namespace

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/runner"
)

func TestOrderRoundTrip(t *testing.T) {
	want := order{
		Mode: modeUser, Commands: []runner.Command{{Argv: []string{"a", "\xff"[:0]}, Env: []string{"A=1"}, Dir: "/"}},
		Mounts:   []runner.Mount{{Kind: runner.Copy, Source: "/s", Target: "/t", Reverse: true, ModTime: 7}},
		Devices:  []runner.Device{{Source: "/dev/a", Target: "/dev/b", Permissions: "r"}},
		Hostname: "h", UID: 1, GID: 2, Umask: 3, CPUs: 4, Scratch: 5, WatchMemory: 6, WatchProcesses: 7, MaxProcesses: 8,
		ClockOffset: -9, NoVDSO: true, Exchange: 10, Link: 11,
		Refusals: 13, Filter: program{{Code: 1, Jt: 2, Jf: 3, K: 0xfffffffe}},
		Network: runner.Network{Egress: []runner.Egress{{Protocol: "tcp", Host: "h", Port: 12}}},
	}
	var pipe bytes.Buffer
	if err := writeOrder(&pipe, want); err != nil {
		t.Fatal(err)
	}
	got, err := readOrder(&pipe)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadFrameRefuses(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want string
	}{
		{"nothing", "", "EOF"},
		{"half a head", "D\x00", "unexpected EOF"},
		{"half a body", "D\x00\x00\x00\x05abc", "read report: unexpected EOF"},
		{"a body over the limit", "D\xff\xff\xff\xff", "read report: frame of 4294967295 bytes is larger than 131072"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, _, err := readFrame(bytes.NewBufferString(test.in)); err == nil || err.Error() != test.want {
				t.Errorf("got error %v, want %q", err, test.want)
			}
		})
	}
}

func TestReadOrderRefuses(t *testing.T) {
	for _, in := range []string{"", "\x00\x00", "\xff\xff\xff\xff", "\x00\x00\x00\x05{}", "\x00\x00\x00\x02[]"} {
		if _, err := readOrder(bytes.NewBufferString(in)); err == nil {
			t.Errorf("%q: got no error", in)
		}
	}
}

// FuzzReport feeds the driver's reader of outputs with what a first process that has been taken over could send: it
// must end, never hand out more than the limit, and end with an error unless the end was said.
func FuzzReport(f *testing.F) {
	frame := func(kind byte, body string) string {
		var b bytes.Buffer
		writeFrame(&b, kind, []byte(body))
		return b.String()
	}
	f.Add(frame(frameData, "abc") + frame(frameEOF, ""))
	f.Add(frame(frameData, "abc") + frame(frameEOF, "file vanished"))
	f.Add(frame(frameData, "abc"))
	f.Add(frame(frameData, "0123456789abcdef0") + frame(frameEOF, ""))
	f.Add(frame(frameStart, "0"))
	f.Add("D\xff\xff\xff\xff")
	f.Fuzz(func(t *testing.T, in string) {
		const limit = 16
		r := &outputReader{report: bytes.NewBufferString(in), name: "x", limit: limit, left: limit}
		data, err := io.ReadAll(r)
		if len(data) > limit {
			t.Errorf("got %d bytes", len(data))
		}
		if err == nil && !errors.Is(r.err, io.EOF) {
			t.Errorf("ended with %v", r.err)
		}
	})
}

// FuzzReadOrder must end with an order or an error whatever comes.
func FuzzReadOrder(f *testing.F) {
	f.Add("\x00\x00\x00\x02{}")
	f.Add("\x00\x00\x00\x10{\"Mode\":\"user\"}")
	f.Add("\x00\x00\x00\x05{}")
	f.Fuzz(func(t *testing.T, in string) {
		readOrder(bytes.NewBufferString(in))
	})
}
