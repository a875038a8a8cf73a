package sequencer_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"arch.network/attest"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/sequencer"
	"arch.network/tests/powercut"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
)

// check returns what is wrong with a log, the chain of its decisions included if it has them.
func check(t testing.TB, opts sequencer.Options, decisions bool) *ledger.Report {
	t.Helper()
	policy, err := ledger.ParsePolicy(opts.Keys.LogPolicy())
	if err != nil {
		t.Fatal(err)
	}
	var chain attest.Chain
	visit := func(_ int64, entry []byte) error {
		if !decisions {
			return nil
		}
		r, err := attest.ReadRecord(entry, nodeKey(t, 1).Public())
		if err != nil {
			return err
		}
		return chain.Add(r)
	}
	report, err := ledger.Check(context.Background(), policy, ledger.Dir(opts.Dir), visit)
	if err != nil {
		t.Fatal(err)
	}
	if n, _, err := chain.End(); decisions && report.OK() && (err != nil || n != report.Tree.Size) {
		t.Errorf("a chain of %d in a log of %d: %v", n, report.Tree.Size, err)
	}
	return report
}

// theirCheck is tessera's own.
func theirCheck(t testing.TB, opts sequencer.Options) error {
	t.Helper()
	verifier, err := note.NewVerifier(opts.Keys.LogVKeys()[0])
	if err != nil {
		t.Fatal(err)
	}
	hasher := func(data []byte) ([][]byte, error) {
		b := &api.EntryBundle{}
		if err := b.UnmarshalText(data); err != nil {
			return nil, err
		}
		var out [][]byte
		for _, e := range b.Entries {
			out = append(out, rfc6962.DefaultHasher.HashLeaf(e))
		}
		return out, nil
	}
	return fsck.New(origin, verifier, client.FileFetcher{Root: opts.Dir}, hasher, fsck.Opts{N: 1}).Check(t.Context())
}

// Logs of all shapes are found right, by us and by tessera.
func TestCheck(t *testing.T) {
	for _, n := range []int{0, 1, 2, 255, 256, 257, 600} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			opts := options(t, t.TempDir())
			l := open(t, opts)
			var futures []sequencer.Future
			for i := range n {
				f, err := l.Add(t.Context(), fmt.Append(nil, "entry", i))
				if err != nil {
					t.Fatal(err)
				}
				futures = append(futures, f)
			}
			for _, f := range futures {
				if _, err := f.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			closeLog(t, l)
			report := check(t, opts, false)
			if !report.OK() || len(report.Damaged()) > 0 || report.Tree.Size != int64(n) {
				t.Errorf("%+v", report)
			}
			if err := theirCheck(t, opts); err != nil && n > 0 {
				t.Errorf("tessera: %v", err)
			}
		})
	}
}

// Whatever bit of whatever file of the log changes, or however a file is cut, it is found.
func TestCheckFindsEveryFlip(t *testing.T) {
	t.Parallel()
	opts := options(t, t.TempDir())
	fill(t, opts, "entry", 3)
	if report := check(t, opts, false); !report.OK() || len(report.Damaged()) > 0 {
		t.Fatalf("before anything changed: %+v", report)
	}
	var files []string
	for _, root := range []string{"checkpoint", "tile", ledger.TreePath} {
		err := filepath.WalkDir(filepath.Join(opts.Dir, root), func(name string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				files = append(files, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	flips, missed := 0, 0
	for _, name := range files {
		good, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		try := func(bad []byte, what string, args ...any) {
			if err := os.WriteFile(name, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			flips++
			report := check(t, opts, false)
			if rel, _ := filepath.Rel(opts.Dir, name); report.OK() && len(report.Damaged()) == 0 {
				if missed++; missed < 10 {
					t.Errorf("%s: %s is not found", rel, fmt.Sprintf(what, args...))
				}
			} else if needed := !strings.Contains(rel, ".p/") || strings.HasSuffix(rel, ".p/3"); needed && report.OK() {
				t.Errorf("%s: %s is no fault", rel, fmt.Sprintf(what, args...))
			}
		}
		for i := range good {
			bad := append([]byte(nil), good...)
			bad[i] ^= 1 << (i % 8)
			try(bad, "a flipped bit of byte %d", i)
		}
		for _, n := range []int{0, 1, len(good) / 2, len(good) - 1} {
			try(good[:n], "cutting it to %d bytes", n)
		}
		try(append(append([]byte(nil), good...), 0), "a byte more")
		if err := os.WriteFile(name, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d files, %d changes, %d missed", len(files), flips, missed)
	if report := check(t, opts, false); !report.OK() {
		t.Fatalf("after all was put back: %+v", report)
	}
}

// Whatever bit of whatever file changes that a killed writer left, its record of what was signed included, no acknowledged entry is lost without a word: it is
// there, or the next writer, or the check, says what is wrong. ARCH_POWER_CUTS=all flips each byte, else one in several.
func TestNoFlipLosesSilently(t *testing.T) {
	t.Parallel()
	dir := memoryDir(t)
	journaled := recordWriter(t, dir, 3).Images(1, 3)[2] // at a word, when only what was synced is there
	if err := journaled.Restore(dir); err != nil {
		t.Fatal(err)
	}
	acked := 0
	for range strings.Lines(journaled.Said) {
		acked++
	}
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files[name], err = os.ReadFile(name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	step := 97
	if powercut.Some(1) < 0 {
		step = 1
	}
	flips, silent, journal := 0, 0, 0
	for name, good := range files {
		rel, _ := filepath.Rel(dir, name)
		end := min(len(good), len(bytes.TrimRight(good, "\x00"))+1024) // a journal has many zeros behind its groups
		for i := 0; i < end; i += step {
			// A directory of its own: in this one process, the storage of the writer before may still write for a moment where that had it.
			dir := memoryDir(t)
			if err := journaled.Restore(dir); err != nil {
				t.Fatal(err)
			}
			bad := append([]byte(nil), good...)
			bad[i] ^= 1 << (i % 8)
			if err := os.WriteFile(filepath.Join(dir, rel), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			flips++
			if strings.Contains(rel, "journal") {
				journal++
			}
			if comesBack(t, dir)(journaled) != nil && recordOne(t, options(t, dir)) == nil && check(t, options(t, dir), true).OK() {
				if silent++; silent < 10 {
					t.Errorf("%s: a flipped bit of byte %d of %d loses what was acknowledged, and nobody says so", rel, i, len(good))
				}
			}
			os.RemoveAll(dir) // there may be many; what this misses is removed at the end
		}
	}
	t.Logf("%d files, %d flips, %d of them in the journal; %d acknowledged, %d silent losses", len(files), flips, journal, acked, silent)
	if journal == 0 || acked == 0 {
		t.Error("there was nothing to lose")
	}
}

// A file that is missing is a fault, and one too many is said to be there.
func TestCheckFindsFiles(t *testing.T) {
	opts := options(t, t.TempDir())
	fill(t, opts, "a", 3)
	stray := filepath.Join(opts.Dir, "tile", "0", "stray")
	if err := os.WriteFile(stray, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	report := check(t, opts, false)
	if !report.OK() || !slices.Contains(report.Spare, ledger.Fault{Path: "tile/0/stray", What: "it is no file of a log"}) {
		t.Errorf("%+v", report)
	}
	for _, name := range []string{"tile/0/000.p/3", "tile/entries/000.p/3"} {
		file := filepath.Join(opts.Dir, name)
		if err := os.Rename(file, file+"away"); err != nil {
			t.Fatal(err)
		}
		if report := check(t, opts, false); report.OK() || report.Faults[0].Path != name {
			t.Errorf("%s is missing: %+v", name, report)
		}
		if err := os.Rename(file+"away", file); err != nil {
			t.Fatal(err)
		}
	}
}
