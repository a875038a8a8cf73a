package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"arch.network/attest/digest"
)

func block(index uint32, b byte) Block { return Block{index, bytes.Repeat([]byte{b}, BlockSize)} }

func mark() *Checkpoint {
	return &Checkpoint{Module: digest.Of([]byte("m")), Gas: 12, Granted: 10, Entry: "_start", State: digest.Of([]byte("s"))}
}

func whole() *Checkpoint {
	c := mark()
	c.Snapshot = &Snapshot{
		WASI: []byte(`{"version":1}`), Globals: []uint64{1, 1 << 63}, Stack: []byte("stack"),
		Pages: 2, Blocks: []Block{block(0, 1), block(31, 2)},
	}
	c.State = c.Snapshot.digest()
	return c
}

// TestFormat shows that both kinds come back, and that the encoding is fixed: its hash is a vector.
func TestFormat(t *testing.T) {
	for _, test := range []struct {
		name string
		c    *Checkpoint
		hash string
	}{
		{"mark", mark(), "sha256:4fa8784d263e0aa04cc75dcafd1294aab4acfeabf5d300e55548d3356c338d0e"},
		{"snapshot", whole(), "sha256:db473413e7f303afc002083109904eca62d1e48d1866b29818fc8400685a19f1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			encoded := test.c.Marshal()
			got, err := Parse(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.c, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if hash := digest.Of(encoded).String(); hash != test.hash {
				t.Errorf("encoding has hash %s, want %s", hash, test.hash)
			}
		})
	}
}

// seal puts the hash of what is changed behind it, as an attacker would.
func seal(content []byte) []byte {
	sum := sha256.Sum256(content)
	return append(bytes.Clone(content), sum[:]...)
}

func TestParseRefuses(t *testing.T) {
	change := func(f func(c *Checkpoint)) []byte {
		c := whole()
		f(c)
		return c.Marshal()
	}
	encoded := whole().Marshal()
	content := encoded[:len(encoded)-32]
	at := func(i int, b ...byte) []byte {
		c := bytes.Clone(content)
		copy(c[i:], b)
		return seal(c)
	}
	const head = len(magic)
	globals := head + 1 + 32 + 16 + 32 + 4 + 6 + 4 + 13
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, `starts with "", not "arch checkpoint 1\n"`},
		{"another version", seal([]byte("arch checkpoint 2\n........")), "not \"arch checkpoint 1\\n\""},
		{"damage", append(bytes.Clone(encoded[:50]), encoded[51:]...), "damaged: its hash is another"},
		{"kind", at(head, 3), "unknown kind 3"},
		{"more", seal(append(bytes.Clone(content), 0)), "1 bytes more than its content"},
		{"less", seal(content[:len(content)-1]), "blocks of 2, with a limit of 32"},
		{"mark with a snapshot", at(head, kindMark), "bytes more than its content"},
		{"gas within the grant", change(func(c *Checkpoint) { c.Gas = 10 }), "gas 10 is not more than the 10 granted"},
		{"entry", change(func(c *Checkpoint) { c.Entry = strings.Repeat("x", 2000) }), "entry of 2000, with a limit of 1024"},
		{"globals", at(globals, 0xff, 0xff, 0xff, 0xff), "globals of 4294967295"},
		{"other state", change(func(c *Checkpoint) { c.Snapshot.Globals[0]++ }), "its state is not the one that it names"},
		{"pages", change(func(c *Checkpoint) { c.Snapshot.Pages = 65537 }), "memory of 65537 pages"},
		{"block out of memory", change(func(c *Checkpoint) { c.Snapshot.Blocks[1].Index = 32 }), "block 32 out of order"},
		{"block twice", change(func(c *Checkpoint) { c.Snapshot.Blocks[1].Index = 0 }), "block 0 out of order"},
		{"block of zeros", change(func(c *Checkpoint) { clear(c.Snapshot.Blocks[0].Bytes) }), "block 0 out of order, out of memory, or zero"},
		{"more blocks than memory", change(func(c *Checkpoint) { c.Snapshot.Pages = 0 }), "blocks of 2, with a limit of 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := Parse(test.data)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v, want error %s", c, err, test.want)
			}
		})
	}
}

// TestDamage changes and cuts a checkpoint at every byte.
func TestDamage(t *testing.T) {
	encoded := mark().Marshal()
	for i := range encoded {
		damaged := bytes.Clone(encoded)
		damaged[i] ^= 1
		if _, err := Parse(damaged); err == nil {
			t.Errorf("accepted with a bit of byte %d changed", i)
		}
		if _, err := Parse(encoded[:i]); err == nil {
			t.Errorf("accepted the first %d bytes", i)
		}
	}
}

// FuzzParse shows that what is accepted has one encoding. Inputs get a right hash, or nothing would be.
func FuzzParse(f *testing.F) {
	for _, c := range []*Checkpoint{mark(), whole()} {
		encoded := c.Marshal()
		f.Add(encoded[:len(encoded)-32])
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		data := seal(content)
		if c, err := Parse(data); err == nil && !bytes.Equal(c.Marshal(), data) {
			t.Errorf("%x encodes as %x", data, c.Marshal())
		}
	})
}

// FuzzRequest shows that no request breaks a worker.
func FuzzRequest(f *testing.F) {
	data, err := request{Version: 1, Slice: 5, Entry: "_start"}.marshal(mark().Marshal())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, _, err := parseRequest(data); err == nil && (r.Slice == 0 || r.Entry == "") {
			t.Errorf("accepted %+v", r)
		}
	})
}
