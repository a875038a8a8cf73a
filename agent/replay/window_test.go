package replay

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"arch.network/agent/disk/disktest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func entry(doc, owner, nonce string, life time.Duration) Entry {
	return Entry{digest.Of([]byte(doc)), owner, nonce, now.Add(life)}
}

func open(t testing.TB, o Options) *Window {
	t.Helper()
	if o.Path == "" {
		o.Path = "/state/replay"
	}
	w, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// answer names what Spend said.
func answer(err error) string {
	if e, ok := errors.AsType[*ReplayError](err); ok {
		return [...]string{"fresh", "spent", "reused"}[e.Answer]
	}
	switch {
	case errors.As(err, new(*ExpiredError)):
		return "expired"
	case errors.As(err, new(*FullError)):
		return "full"
	case err != nil:
		return err.Error()
	}
	return "accepted"
}

// TestAttacks spends one document, lets time pass, opens the window anew, and tries another.
func TestAttacks(t *testing.T) {
	first := entry("a", "user:alice", "nonce-001", time.Hour)
	tests := []struct {
		name string
		e    Entry
		pass time.Duration
		want string
	}{
		{"the same envelope again", first, time.Second, "spent"},
		{"the same envelope a moment before it expires", first, time.Hour - 1, "spent"},
		{"the same envelope when it has expired", first, time.Hour, "expired"},
		{"its nonce in another document", entry("b", "user:alice", "nonce-001", time.Hour), 0, "reused"},
		{"its nonce in a document that expires later", entry("b", "user:alice", "nonce-001", 9*time.Hour), 0, "reused"},
		{"its nonce of another owner", entry("b", "user:bob", "nonce-001", time.Hour), 0, "accepted"},
		{"an owner and a nonce that join to the same text", entry("b", "user:alicenonce", "-001", time.Hour), 0, "accepted"},
		{"another nonce", entry("b", "user:alice", "nonce-002", time.Hour), 0, "accepted"},
		{"expired before it came", entry("b", "user:alice", "nonce-002", -time.Second), 0, "expired"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := disktest.New()
			w := open(t, Options{FS: files})
			if err := w.Spend(first, now); err != nil {
				t.Fatal(err)
			}
			if got := answer(w.Spend(tt.e, now.Add(tt.pass))); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			files.Fault = disktest.Power
			w = open(t, Options{FS: files.Restart()})
			want := tt.want
			if want == "accepted" {
				want = "spent"
			}
			if got := answer(w.Spend(tt.e, now.Add(tt.pass))); got != want {
				t.Errorf("after a power cut: %s, want %s", got, want)
			}
		})
	}
}

func TestEntryOf(t *testing.T) {
	doc := &manifest.Job{Metadata: manifest.Metadata{Owner: "user:alice", Expires: "2026-06-01T13:00:00Z"}}
	if _, has, err := EntryOf(doc, digest.SHA256{}); has || err != nil {
		t.Errorf("%v, %v", has, err)
	}
	doc.Spec.Nonce = "nonce-001"
	e, has, err := EntryOf(doc, digest.Of([]byte("a")))
	if diff := cmp.Diff(entry("a", "user:alice", "nonce-001", time.Hour), e); diff != "" || !has || err != nil {
		t.Errorf("%v, %v (-want +got)\n%s", has, err, diff)
	}
	doc.Metadata.Expires = ""
	if _, _, err := EntryOf(doc, digest.SHA256{}); err == nil {
		t.Error("a nonce without end is no error")
	}
}

// TestClockBack shows that what was forgotten because it had expired does not come again when the clock is set back.
func TestClockBack(t *testing.T) {
	files := disktest.New()
	w := open(t, Options{FS: files, Max: 1})
	first := entry("a", "user:alice", "nonce-001", time.Hour)
	if err := w.Spend(first, now); err != nil {
		t.Fatal(err)
	}
	if got := answer(w.Spend(entry("b", "user:alice", "nonce-002", 3*time.Hour), now)); got != "full" {
		t.Error(got)
	}
	if got := answer(w.Spend(entry("b", "user:alice", "nonce-002", 3*time.Hour), now.Add(2*time.Hour))); got != "accepted" {
		t.Error(got)
	}
	if got := answer(w.Spend(first, now)); got != "expired" {
		t.Errorf("the clock was set back: %s", got)
	}
}

// TestCompact spends many short-lived documents: the file and the memory stay small, and what still counts is kept.
func TestCompact(t *testing.T) {
	files := disktest.New()
	w := open(t, Options{FS: files})
	kept := entry("kept", "user:alice", "nonce-kept", 1000*time.Hour)
	if err := w.Spend(kept, now); err != nil {
		t.Fatal(err)
	}
	at := now
	for i := range 3 * slack {
		at = at.Add(time.Second)
		e := Entry{digest.Of(fmt.Append(nil, i)), "user:bob", fmt.Sprintf("nonce-%05d", i), at.Add(time.Minute)}
		if err := w.Spend(e, at); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.Len(); n > slack+200 {
		t.Errorf("%d are remembered", n)
	}
	if n := len(files.Get("/state/replay")); n > (2*slack+300)*(recordSize+groupSize) {
		t.Errorf("the file has %d bytes", n)
	}
	w = open(t, Options{FS: files.Restart()})
	if got := answer(w.Spend(kept, at)); got != "spent" {
		t.Error(got)
	}
	if got := answer(w.Spend(Entry{digest.Of([]byte("x")), "user:bob", "nonce-00000", now.Add(time.Hour)}, now)); got != "expired" {
		t.Errorf("the clock was set back: %s", got)
	}
}

// TestRace lets many try the same documents at once: each is accepted exactly once.
func TestRace(t *testing.T) {
	w := open(t, Options{Path: filepath.Join(t.TempDir(), "replay")})
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := map[string]int{}
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				nonce := fmt.Sprintf("nonce-%03d", i)
				switch err := w.Spend(entry(nonce, "user:alice", nonce, time.Hour), now); answer(err) {
				case "accepted":
					mu.Lock()
					accepted[nonce]++
					mu.Unlock()
				case "spent":
				default:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for nonce, n := range accepted {
		if n != 1 {
			t.Errorf("%s was accepted %d times", nonce, n)
		}
	}
	if len(accepted) != 100 {
		t.Errorf("%d were accepted", len(accepted))
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Spend(entry("x", "user:alice", "nonce-x", time.Hour), now); err == nil {
		t.Error("a closed window takes more")
	}
}

// TestFaults stops the world at each file operation of some spending, compaction included, in each of three ways. What was
// acknowledged must be remembered by the next process, and a window that is not sure must not acknowledge.
func TestFaults(t *testing.T) {
	for _, fault := range []disktest.Fault{disktest.Fail, disktest.Kill, disktest.Power} {
		points := 0
		for at := 1; ; at++ {
			files := disktest.New()
			files.At, files.Fault = at, fault
			acked, total := spendSome(files)
			if len(files.Ops()) < at {
				if len(acked) != total {
					t.Fatalf("without a fault, %d of %d were accepted", len(acked), total)
				}
				break
			}
			points++
			w, err := Open(Options{Path: "/state/replay", FS: files.Restart()})
			if err != nil {
				t.Fatalf("%v at %d (%s): %v", fault, at, files.Ops()[at-1], err)
			}
			for _, e := range acked {
				if got := answer(w.Spend(e, now)); got != "spent" {
					t.Fatalf("%v at %d (%s): %s was acknowledged, and then %s", fault, at, files.Ops()[at-1], e.Nonce, got)
				}
			}
			if got := answer(w.Spend(entry("new", "user:alice", "nonce-new", time.Hour), now)); got != "accepted" {
				t.Fatalf("%v at %d: afterwards: %s", fault, at, got)
			}
		}
		t.Logf("%v: %d points", fault, points)
	}
}

// spendSome opens a window, spends some documents with a compaction in between, and returns those that were acknowledged.
func spendSome(files *disktest.FS) (acked []Entry, total int) {
	w, err := Open(Options{Path: "/state/replay", FS: files})
	if err != nil {
		return nil, 0
	}
	w.sweepAt = 3
	for i := range 8 {
		e := entry(fmt.Sprint(i), "user:alice", fmt.Sprintf("nonce-%03d", i), time.Hour)
		if w.records == 5 {
			w.records += 2*len(w.spent) + slack // as if much had expired
			w.sweepAt = 0
		}
		total++
		if w.Spend(e, now) == nil {
			acked = append(acked, e)
		}
	}
	return acked, total
}

// TestDamaged shows that a changed byte is noticed, or was in a last group that may never have been acknowledged.
func TestDamaged(t *testing.T) {
	files := disktest.New()
	w := open(t, Options{FS: files})
	for i := range 2 {
		if err := w.Spend(entry(fmt.Sprint(i), "user:alice", fmt.Sprintf("nonce-%03d", i), time.Hour), now); err != nil {
			t.Fatal(err)
		}
	}
	data := files.Get("/state/replay")
	for i := range headerSize {
		broken := bytes.Clone(data)
		broken[i] ^= 1
		files.Put("/state/replay", broken)
		if _, err := Open(Options{Path: "/state/replay", FS: files}); err == nil {
			t.Fatalf("byte %d", i)
		}
	}
	// A group in the middle of many.
	var all []byte
	for i := range maxGroup + 2 {
		e := entry(fmt.Sprint(i), "user:alice", fmt.Sprintf("nonce-%06d", i), time.Hour)
		all = append(all, groups(appendRecord(nil, e.key(), use{e.ID, e.Expires.Unix()}))[0]...)
	}
	broken := append(header(time.Time{}), all...)
	broken[headerSize+10] ^= 1
	files.Put("/state/replay", broken)
	if _, err := Open(Options{Path: "/state/replay", FS: files}); !errors.Is(err, errDamaged) {
		t.Errorf("%v", err)
	}
}

func FuzzLoad(f *testing.F) {
	files := disktest.New()
	w := open(f, Options{FS: files})
	f.Add(files.Get("/state/replay"))
	for i := range 3 {
		if err := w.Spend(entry(fmt.Sprint(i), "user:alice", fmt.Sprintf("nonce-%03d", i), time.Hour), now); err != nil {
			f.Fatal(err)
		}
		f.Add(files.Get("/state/replay"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		files := disktest.New()
		files.Put("/state/replay", data)
		w, err := Open(Options{Path: "/state/replay", FS: files})
		if err != nil {
			return
		}
		again, err := Open(Options{Path: "/state/replay", FS: files.Restart()})
		if err != nil || again.Len() != w.Len() {
			t.Fatalf("it holds %d, and then %d: %v", w.Len(), again.Len(), err)
		}
	})
}

// BenchmarkSpend spends from 64 goroutines on a real disk.
func BenchmarkSpend(b *testing.B) {
	w := open(b, Options{Path: filepath.Join(b.TempDir(), "replay")})
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			var id digest.SHA256
			for i := range 4 {
				n := rand.Uint64()
				for k := range 8 {
					id[8*i+k] = byte(n >> (8 * k))
				}
			}
			if err := w.Spend(Entry{id, "user:alice", id.Hex(), now.Add(time.Hour)}, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "spent/s")
}

// TestSpendAgain has one operation of the disk fail, such as when it is full, while a document is spent or the file is then written anew: the
// document may be spent when the disk works again, and whatever was spent stays so.
func TestSpendAgain(t *testing.T) {
	first, second := entry("a", "user:alice", "nonce-001", time.Hour), entry("b", "user:alice", "nonce-002", time.Hour)
	failures := 0
	for at := 1; ; at++ {
		files := disktest.New()
		w := open(t, Options{FS: files})
		if err := w.Spend(first, now); err != nil {
			t.Fatal(err)
		}
		files.At = len(files.Ops()) + 1 // the append of the record breaks the window, and then one of what mends it
		if err := w.Spend(second, now); !errors.Is(err, disktest.ErrInjected) {
			t.Fatalf("spent although the disk failed: %v", err)
		}
		files.At = len(files.Ops()) + at
		err := w.Spend(second, now)
		files.At = 0
		if err != nil {
			failures++
			if err = w.Spend(second, now); err != nil {
				t.Errorf("operation %d: with a disk that works again: %v", at, err)
			}
		} else if failures == 0 {
			t.Error("nothing failed")
		} else {
			return
		}
		for _, e := range []Entry{first, second} {
			if got := answer(w.Spend(e, now)); got != "spent" {
				t.Errorf("operation %d: %s again: %s", at, e.Nonce, got)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		w = open(t, Options{FS: files.Restart()})
		if got := w.Len(); got != 2 {
			t.Errorf("operation %d: %d documents are remembered after a restart", at, got)
		}
	}
}

// TestTakeBack lets a document that came to nothing be spent again, and no other with its nonce take it back.
func TestTakeBack(t *testing.T) {
	w := open(t, Options{FS: disktest.New()})
	e := entry("a", "user:alice", "nonce-001", time.Hour)
	for range 2 {
		if got := answer(w.Spend(e, now)); got != "accepted" {
			t.Fatal(got)
		}
		w.TakeBack(entry("b", "user:alice", "nonce-001", time.Hour))
		if got := answer(w.Spend(e, now)); got != "spent" {
			t.Error(got)
		}
		w.TakeBack(e)
	}
}
