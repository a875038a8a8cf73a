package systemd

import (
	"bytes"
	"testing"

	"arch.network/runner"
)

// sent takes what the present driver is due of a stream.
func sent(b *backlog, want int) []byte {
	var got []byte
	for {
		stream, p := b.next()
		if p == nil {
			return got
		}
		if stream == want {
			got = append(got, p...)
		}
	}
}

func TestBacklogResumes(t *testing.T) {
	for name, c := range map[string]struct {
		acknowledged, had int64
		want              string
		hole              bool
	}{
		"nothing is known":          {0, 0, "0123456789", false},
		"as the driver said":        {4, 4, "456789", false},
		"more than the driver said": {4, 8, "89", false},
		"all":                       {0, 10, "", false},
		"less than the driver said": {4, 2, "456789", true}, // what is gone is gone
		"more than there is":        {0, 99, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBacklog()
			b.add(0, []byte("0123456789"))
			b.add(1, []byte("other"))
			if got := sent(b, 0); string(got) != "0123456789" {
				t.Errorf("the first driver got %q", got)
			}
			if err := b.keep(0, c.acknowledged); err != nil {
				t.Fatal(err)
			}
			if hole := b.resume(runner.Kept{Stdout: c.had}); hole != c.hole {
				t.Errorf("it is a hole: %v", hole)
			}
			if got := sent(b, 0); string(got) != c.want {
				t.Errorf("the next driver got %q", got)
			}
		})
	}
}

func TestBacklogRefuses(t *testing.T) {
	b := newBacklog()
	b.add(0, []byte("0123456789"))
	if b.keep(0, 1) == nil {
		t.Error("what was not sent is kept")
	}
	for _, body := range []string{"", "x", "\x02\x00\x00\x00\x00\x00\x00\x00\x00", "\x00\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if _, _, err := parseKept([]byte(body)); err == nil {
			t.Errorf("%q is accepted", body)
		}
	}
}

// TestBacklogWaits prints more than is held.
func TestBacklogWaits(t *testing.T) {
	b := newBacklog()
	all := bytes.Repeat([]byte("0123456789abcdef"), maxBacklog/8)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; n < len(all); {
			n += b.add(1, all[n:])
		}
	}()
	var got []byte
	for len(got) < len(all) {
		_, p := b.next()
		got = append(got, p...)
		b.mu.Lock()
		if n := len(b.streams[1].rest); n > maxBacklog {
			t.Fatalf("%d bytes are held", n)
		}
		b.mu.Unlock()
		if err := b.keep(1, int64(len(got))); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, all) {
		t.Error("it is not what was printed")
	}
	<-done
	b.end()
	if n := b.add(1, all); n != len(all) {
		t.Errorf("%d bytes are taken when nobody will come", n)
	}
}
