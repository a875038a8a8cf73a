package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"arch.network/attest/digest"
)

func block(index uint32, b byte) Block { return Block{index, bytes.Repeat([]byte{b}, BlockSize)} }

func mark() *Checkpoint {
	return &Checkpoint{Module: digest.Of([]byte("m")), Gas: 12, Granted: 10, Version: "v", Entry: "_start", State: digest.Of([]byte("s"))}
}

func whole() *Checkpoint {
	c := mark()
	c.Snapshot = &Snapshot{
		WASI: []byte(`{"version":1}`), Globals: []uint64{1, 1 << 63}, Stack: []byte("stack"),
		Pages: 2, Blocks: []Block{block(0, 1), block(31, 2)}, Files: []Files{{"/outputs", []byte("nar")}, {"/tmp", []byte("other")}},
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
		{"mark", mark(), "sha256:7ce8c087a9dfb67738d76d387a6646221a587d96d8f7107407df01c8f5d7e338"},
		{"snapshot", whole(), "sha256:6d7560a63c51afc6daccfe8567e8744f271b326990c4cbd9a6dbddc72f11278e"},
	} {
		t.Run(test.name, func(t *testing.T) {
			encoded := test.c.Marshal()
			got, err := Parse(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.c, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Checkpoint{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if hash := digest.Of(encoded).String(); hash != test.hash {
				t.Errorf("encoding has hash %s, want %s", hash, test.hash)
			}
		})
	}
}

// headSize is how long an encoding is before its first hash, for the version and entry of mark, without a call stack.
const headSize = len(magic) + 1 + 32 + 8 + 8 + 32 + 4 + 1 + 4 + 6 + 4 + 32

// seal makes a checkpoint of a head, a state and files with the hashes that they need, as an attacker would.
func seal(head, body, files []byte) []byte {
	head = bytes.Clone(head)
	if at := len(magic) + 1 + 32 + 16; len(head) >= at+32+32 && head[len(magic)] == kindWhole {
		state, hash := sha256.Sum256(body), sha256.Sum256(files)
		copy(head[at:], state[:])
		copy(head[len(head)-32:], hash[:])
	}
	sum := sha256.Sum256(head)
	return slices.Concat(head, sum[:], body, files)
}

// split takes apart what seal makes of it.
func split(c *Checkpoint) (head, body, files []byte) {
	encoded := c.Marshal()
	size := headSize + len(c.Snapshot.Stack)
	end := len(encoded) - c.Snapshot.filesSize()
	return encoded[:size], encoded[size+32 : end], encoded[end:]
}

func TestParseRefuses(t *testing.T) {
	change := func(f func(c *Checkpoint)) []byte {
		c := whole()
		f(c)
		c.State = c.Snapshot.digest()
		return c.Marshal()
	}
	encoded := whole().Marshal()
	head, body, files := split(whole())
	at := func(i int, b ...byte) []byte {
		c := bytes.Clone(body)
		copy(c[i:], b)
		return seal(head, c, files)
	}
	kind := func(kind byte, head, body []byte) []byte {
		head = bytes.Clone(head)
		head[len(magic)] = kind
		return seal(head, body, nil)
	}
	markHead := mark().Marshal()[:headSize]
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, `starts with "", not "arch checkpoint 2\n"`},
		{"another version", []byte("arch checkpoint 1\n........"), "not \"arch checkpoint 2\\n\""},
		{"damaged head", append(append(bytes.Clone(encoded[:50]), encoded[50]^1), encoded[51:]...), "damaged: its hash is another"},
		{"damaged body", slices.Concat(encoded[:headSize+5+32+8], []byte{9}, encoded[headSize+5+32+9:]), "damaged: its state is not the one that it names"},
		{"damaged files", append(bytes.Clone(encoded[:len(encoded)-1]), 9), "damaged: its files are not the ones that it names"},
		{"directory twice", change(func(c *Checkpoint) { c.Snapshot.Files[1].Path = "/outputs" }), `directory "/outputs" out of order`},
		{"mark with files", seal(append(bytes.Clone(markHead[:len(markHead)-1]), 1), nil, nil), "kind 1"},
		{"kind", kind(3, markHead, nil), "kind 3"},
		{"mark with a call stack", kind(kindMark, head, nil), "kind 1, call stack of 5 bytes"},
		{"mark with a body", kind(kindMark, markHead, body), "bytes more than its content"},
		{"more", seal(head, body, append(bytes.Clone(files), 0)), "damaged: its files are not the ones that it names"},
		{"less", seal(head, body[:len(body)-BlockSize], nil), "blocks of 2, with a limit of 32"},
		{"fewer files", seal(head, body, files[:len(files)-1]), "files of 5, with a limit of"},
		{"gas within the grant", change(func(c *Checkpoint) { c.Gas = 10 }), "gas 10 is not more than the 10 granted"},
		{"entry", change(func(c *Checkpoint) { c.Entry = strings.Repeat("x", 2000) }), "entry of 2000, with a limit of 1024"},
		{"globals", at(4+13, 0xff, 0xff, 0xff, 0xff), "globals of 4294967295"},
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

// FuzzParse shows that what is accepted has one encoding. Inputs get right hashes, or nothing would be.
func FuzzParse(f *testing.F) {
	head, body, files := split(whole())
	f.Add(head, body, files)
	f.Add(mark().Marshal()[:headSize], []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, head, body, files []byte) {
		data := seal(head, body, files)
		if c, err := Parse(data); err == nil && !bytes.Equal(c.Marshal(), data) {
			t.Errorf("%x encodes as %x", data, c.Marshal())
		}
	})
}

// FuzzRequest shows that no request breaks a worker.
func FuzzRequest(f *testing.F) {
	data, err := request{Version: 2, Slice: 5, Entry: "_start"}.marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(data, mark().Marshal()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, _, err := parseRequest(data); err == nil && (r.Slice == 0 || r.Entry == "") {
			t.Errorf("accepted %+v", r)
		}
	})
}
