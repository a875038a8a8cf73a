package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"arch.network/attest/ledger"

	"github.com/google/go-cmp/cmp"
	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/tlog"
)

// sizes are of trees around the edges of tiles and of their levels.
var sizes = []int{1, 2, 3, 255, 256, 257, 511, 512, 513, 65535, 65536, 65537, 66100}

// Proofs made from tiles are those that golang.org/x/mod makes from its list of hashes, and hold.
func TestProver(t *testing.T) {
	l := newLog(t, slices.Max(sizes))
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range sizes {
		c := l.checkpoint(t, size)
		p := ledger.NewProver(c, l.tiles(nil), 0)
		for _, index := range append([]int{0, size - 1}, random.Perm(size)[:min(size, 20)]...) {
			got, err := p.Inclusion(t.Context(), int64(index))
			if err != nil {
				t.Fatalf("entry %d of %d: %v", index, size, err)
			}
			want, err := tlog.ProveRecord(int64(size), int64(index), l)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]tlog.Hash(want), got); diff != "" {
				t.Fatalf("entry %d of %d (-want +got):\n%s", index, size, diff)
			}
			if err := c.Includes(int64(index), got, l.entries[index]); err != nil {
				t.Error(err)
			}
			if err := c.Includes(int64(index), got, []byte("another")); err == nil {
				t.Errorf("another entry is said to be number %d of %d", index, size)
			}
		}
		for _, old := range append([]int{0, size}, random.Perm(size)[:min(size, 10)]...) {
			hashes, err := p.Consistency(t.Context(), int64(old))
			if err != nil {
				t.Fatalf("from %d to %d: %v", old, size, err)
			}
			if err := c.Continues(l.checkpoint(t, old), hashes); err != nil {
				t.Errorf("from %d to %d: %v", old, size, err)
			}
		}
	}
}

// Whatever byte of whatever tile is wrong, no wrong proof comes out: either the proof does not need it, or the tile is refused.
func TestProverRefusesEveryFlippedTile(t *testing.T) {
	const size = 66100
	l := newLog(t, size)
	c := l.checkpoint(t, size)
	random := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for range 300 {
		index := random.Int64N(size)
		var seen []string
		_, err := ledger.NewProver(c, l.tiles(func(path string, data []byte) []byte {
			seen = append(seen, path)
			return data
		}), 0).Inclusion(t.Context(), index)
		if err != nil {
			t.Fatal(err)
		}
		victim := seen[random.IntN(len(seen))]
		hashes, err := ledger.NewProver(c, l.tiles(func(path string, data []byte) []byte {
			if path == victim {
				data[random.IntN(len(data))] ^= 1 << random.IntN(8)
			}
			return data
		}), 0).Inclusion(t.Context(), index)
		switch {
		case err == nil:
			t.Errorf("entry %d: %s was changed, and a proof %v came out", index, victim, hashes)
		case strings.Contains(err.Error(), "not those of the checkpoint"):
			refused++
		default:
			t.Error(err)
		}
	}
	if refused != 300 {
		t.Errorf("%d of 300 changed tiles were found", refused)
	}
}

func TestProverRefuses(t *testing.T) {
	l := newLog(t, 300)
	c := l.checkpoint(t, 300)
	short := l.tiles(func(_ string, data []byte) []byte { return data[:len(data)-1] })
	if _, err := ledger.NewProver(c, short, 0).Inclusion(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "bytes, not") {
		t.Errorf("tiles cut short: %v", err)
	}
	p := ledger.NewProver(c, l.tiles(nil), 1) // with room for one tile
	for _, index := range []int64{-1, 300} {
		if _, err := p.Inclusion(t.Context(), index); err == nil {
			t.Errorf("entry %d of 300 was proved", index)
		}
	}
	for _, old := range []int64{-1, 301} {
		if _, err := p.Consistency(t.Context(), old); err == nil {
			t.Errorf("continuing %d was proved", old)
		}
	}
	if _, err := p.Inclusion(t.Context(), 299); err != nil {
		t.Error(err)
	}
}

func TestContinues(t *testing.T) {
	l, fork := newLog(t, 9), newLog(t, 9)
	fork.hashes[0][0] ^= 1 // never looked at again: only its own leaf differs
	consistency, err := ledger.NewProver(l.checkpoint(t, 9), l.tiles(nil), 0).Consistency(t.Context(), 5)
	if err != nil {
		t.Fatal(err)
	}
	at := func(size int, change func(*ledger.Checkpoint)) ledger.Checkpoint {
		c := l.checkpoint(t, size)
		if change != nil {
			change(&c)
		}
		return c
	}
	other := func(c *ledger.Checkpoint) { c.Root[0] ^= 1 }
	tests := []struct {
		name     string
		old, new ledger.Checkpoint
		proof    []tlog.Hash
		fork     bool
		err      string
	}{
		{"later", at(5, nil), at(9, nil), consistency, false, ""},
		{"the same", at(9, nil), at(9, nil), nil, false, ""},
		{"from nothing", at(0, nil), at(9, nil), nil, false, ""},
		{"smaller", at(9, nil), at(5, nil), nil, true, "does not continue"},
		{"same size, other root", at(9, nil), at(9, other), nil, true, "does not continue"},
		{"later, other past", at(5, other), at(9, nil), consistency, true, "does not continue"},
		{"without the proof", at(5, nil), at(9, nil), nil, true, "does not continue"},
		{"a proof where none is needed", at(9, nil), at(9, nil), consistency, false, "none is needed"},
		{"another log", at(5, func(c *ledger.Checkpoint) { c.Origin = "x" }), at(9, nil), consistency, false, "another log"},
		{"endless proof", at(5, nil), at(9, nil), make([]tlog.Hash, 64), true, "does not continue"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.new.Continues(tt.old, tt.proof)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if _, ok := errors.AsType[*ledger.ForkError](err); ok != tt.fork {
				t.Errorf("error %v is a fork: %v", err, ok)
			}
		})
	}
}

// A proof travels as a file, which the library of the specification's authors reads and writes in the same way.
func TestProof(t *testing.T) {
	l := newLog(t, 700)
	log := ed25519Key(t, "log.example/test", 'a')
	trusted := policy(t, "log "+log.vkey, "quorum none")
	c := l.checkpoint(t, 700)
	for _, extra := range [][]byte{nil, []byte("more")} {
		hashes, err := ledger.NewProver(c, l.tiles(nil), 0).Inclusion(t.Context(), 345)
		if err != nil {
			t.Fatal(err)
		}
		made := &ledger.Proof{Index: 345, Hashes: hashes, Note: sign(t, c, log), Extra: extra}
		text := made.Marshal()
		var theirs proof.TLogProof
		if err := theirs.Unmarshal(text); err != nil {
			t.Fatal(err)
		}
		if again := theirs.Marshal(); !bytes.Equal(again, text) {
			t.Errorf("written by us:\n%s\nby them:\n%s", text, again)
		}
		read, err := ledger.ParseProof(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(made, read); diff != "" {
			t.Errorf("proof (-made +read):\n%s", diff)
		}
		s, err := read.Verify(trusted, []byte("entry 345"))
		if err != nil || s.Size != 700 {
			t.Errorf("verify: %+v, %v", s, err)
		}
		if _, err := read.Verify(trusted, []byte("entry 346")); err == nil {
			t.Error("another entry was verified")
		}
		read.Index = 344
		if _, err := read.Verify(trusted, []byte("entry 345")); err == nil {
			t.Error("another place was verified")
		}
	}
}

func TestParseProofRefuses(t *testing.T) {
	const hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	const head = "c2sp.org/tlog-proof@v1\n"
	tests := []struct{ name, text, err string }{
		{"nothing", "", "no empty line"},
		{"another version", "c2sp.org/tlog-proof@v2\nindex 0\n\nx\n", "begins with"},
		{"no index", head + hash + "\n\nx\n", "no index line"},
		{"a negative index", head + "index -1\n\nx\n", "no index"},
		{"an index with a zero before it", head + "index 01\n\nx\n", "no index"},
		{"an index over 63 bits", head + "index 9223372036854775808\n\nx\n", "no index"},
		{"no checkpoint", head + "index 0\n\n", "no empty line"},
		{"a hash that is none", head + "index 0\nAAAA\n\nx\n", "no hash"},
		{"a hash with stray bits", head + "index 0\n" + strings.Replace(hash, "A=", "B=", 1) + "\n\nx\n", "no hash"},
		{"extra that is not base64", head + "extra ?\nindex 0\n\nx\n", "not base64"},
		{"a carriage return", head + "index 0\r\n\nx\n", "no index"},
		{"too many hashes", head + "index 0\n" + strings.Repeat(hash+"\n", 64) + "\nx\n", "over the limit of 63"},
		{"too long", head + strings.Repeat("x", 1<<20), "over the limit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ledger.ParseProof([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func FuzzParseProof(f *testing.F) {
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra AA==\nindex 7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nx\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := ledger.ParseProof(data); err == nil && !bytes.Equal(p.Marshal(), data) {
			t.Errorf("%q is written as %q", data, p.Marshal())
		}
	})
}

func BenchmarkProof(b *testing.B) {
	const size = 200_000
	l := newLog(b, size)
	c := l.checkpoint(b, size)
	p := ledger.NewProver(c, l.tiles(nil), 0)
	random := rand.New(rand.NewPCG(1, 2))
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			if _, err := p.Inclusion(b.Context(), random.Int64N(size)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		hashes, err := p.Inclusion(b.Context(), 12345)
		if err != nil {
			b.Fatal(err)
		}
		entry := fmt.Appendf(nil, "entry %d", 12345)
		for b.Loop() {
			if err := c.Includes(12345, hashes, entry); err != nil {
				b.Fatal(err)
			}
		}
	})
}
