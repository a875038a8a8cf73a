// Package replay remembers, over restarts, which documents with a nonce a node has accepted, until they expire, so that
// none is accepted twice and no nonce in two documents.
//
// It promises that what Spend returned nil for is remembered after a power cut, and that no two calls of Spend, whatever
// happens in between but a TakeBack, both return nil for one owner's nonce while it may still be valid. Many calls at once share
// one write. It is bounded: when it is full of what has not expired, it refuses rather than forget.
//
// It judges nothing else, and knows no documents without a nonce: those their issuer lets run again and again, and the node
// tells submitting one twice from running it twice by its own records.
package replay

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"arch.network/agent/admission"
	"arch.network/agent/disk"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// DefaultMax is how many documents are remembered: about 150 bytes of memory and 72 to 160 of disk each.
const DefaultMax = 1 << 20

// Options say where and how much.
type Options struct {
	Path string  // of the file; its directory must be there, and nobody else may write to it
	Max  int     // most documents that are remembered. Zero: DefaultMax
	FS   disk.FS // nil: the operating system's
}

// Window is what a node remembers. All methods may be called by several goroutines at once.
type Window struct {
	o Options

	mu      sync.Mutex  // guards what follows
	spent   map[key]use // by owner and nonce
	swept   time.Time   // documents that expired until then may have been forgotten
	records int         // in the file
	pending []byte      // records that are not written yet
	batch   *batch      // of those
	broken  error       // why nothing can be written: what the file holds is not known
	closed  bool
	sweepAt int // records from which on it is worth to look for what has expired

	commit sync.Mutex // held while the file is written; taken before mu
	file   disk.File
}

// key is the hash of an owner and a nonce.
type key [sha256.Size]byte

// use is a document that spent a nonce.
type use struct {
	id      digest.SHA256
	expires int64 // Unix seconds
}

// batch is a group of records that become durable together. Guarded by Window.commit.
type batch struct {
	keys []key
	done bool
	err  error
}

// Entry is what a document spends.
type Entry struct {
	ID      digest.SHA256 // document id
	Owner   string
	Nonce   string
	Expires time.Time
}

// EntryOf returns what a job spends; false: it has no nonce, and spends nothing.
func EntryOf(doc *manifest.Job, id digest.SHA256) (Entry, bool, error) {
	if doc.Spec.Nonce == "" {
		return Entry{}, false, nil
	}
	expires, err := time.Parse(time.RFC3339, doc.Metadata.Expires)
	if err != nil {
		return Entry{}, true, fmt.Errorf("job %s has a nonce: metadata.expires: %w", doc.Metadata.Name, err)
	}
	return Entry{id, doc.Metadata.Owner, doc.Spec.Nonce, expires}, true, nil
}

func (e Entry) key() key {
	return sha256.Sum256([]byte(e.Owner + "\x00" + e.Nonce)) // no owner has a zero byte
}

// ReplayError says that a document, or its nonce, was accepted before.
type ReplayError struct {
	Entry  Entry
	Answer admission.Replay // Spent or Reused
}

func (e *ReplayError) Error() string {
	if e.Answer == admission.Spent {
		return fmt.Sprintf("document %s was accepted before", e.Entry.ID)
	}
	return fmt.Sprintf("nonce %q of %s was accepted before in another document than %s", e.Entry.Nonce, e.Entry.Owner, e.Entry.ID)
}

// Hint tells the way out.
func (e *ReplayError) Hint() string { return "have a document with another nonce signed" }

// FullError says that nothing more can be remembered.
type FullError struct{ Max int }

func (e *FullError) Error() string {
	return fmt.Sprintf("%d documents that have not expired are remembered already", e.Max)
}

// Hint tells the way out.
func (e *FullError) Hint() string {
	return "try again when some have expired; documents that expire sooner are forgotten sooner"
}

// ExpiredError says that a document expired before a time for which the window has forgotten everything: the clock went back.
type ExpiredError struct {
	Entry Entry
	Swept time.Time
}

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("document %s expired on %s, and it was %s already", e.Entry.ID, instant(e.Entry.Expires), instant(e.Swept))
}

// Hint tells the way out.
func (e *ExpiredError) Hint() string { return "set the clock, or have it signed anew with a later end" }

// Open reads the file, or makes it. A record that was being written when the process ended is cut off: nobody was told
// that it is remembered. The error is for a file that is damaged otherwise: forgetting it would let documents come again.
func Open(o Options) (*Window, error) {
	if o.Max == 0 {
		o.Max = DefaultMax
	}
	if o.FS == nil {
		o.FS = disk.OS{}
	}
	w := &Window{o: o, spent: map[key]use{}, batch: &batch{}, sweepAt: slack}
	data, err := o.FS.Read(o.Path, int64(headerSize)+int64(groupSize+recordSize)*(2*int64(o.Max)+2*slack))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := w.create(nil, time.Time{}); err != nil {
			return nil, err
		}
		return w, nil
	case err != nil:
		return nil, err
	}
	good, err := w.load(data)
	if err != nil {
		return nil, &damagedError{o.Path, err}
	}
	if good < len(data) {
		if err := o.FS.Truncate(o.Path, int64(good)); err != nil {
			return nil, err
		}
	}
	if w.file, err = o.FS.Append(o.Path); err != nil {
		return nil, err
	}
	// What a process wrote and did not sync may be read now and be gone after a power cut: what is read, counts.
	if err := errors.Join(w.file.Sync(), o.FS.SyncDir(filepath.Dir(o.Path))); err != nil {
		return nil, errors.Join(err, w.file.Close())
	}
	return w, nil
}

// damagedError says that the file cannot be relied on.
type damagedError struct {
	path string
	err  error
}

func (e *damagedError) Error() string { return fmt.Sprintf("read %s: %v", e.path, e.err) }
func (e *damagedError) Unwrap() error { return e.err }

// Hint tells the way out.
func (e *damagedError) Hint() string {
	return "restore it, or remove it only if no document with a nonce may still be valid"
}

// Seen tells what is known of a document, for admission.Input. It is a hint: Spend decides.
func (w *Window) Seen(e Entry) admission.Replay {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen(e)
}

func (w *Window) seen(e Entry) admission.Replay {
	switch was, ok := w.spent[e.key()]; {
	case !ok:
		return admission.Fresh
	case was.id == e.ID:
		return admission.Spent
	}
	return admission.Reused
}

// Spend remembers a document until it expires, and returns when that is durable. Now is the time by a clock that never
// goes far back: see policy.Keeper. The error is a *ReplayError, a *FullError, an *ExpiredError, or that of the disk: then the document is
// not spent, unless the process ends before the next Spend has written the file anew.
func (w *Window) Spend(e Entry, now time.Time) error {
	if err := w.repair(); err != nil {
		return err
	}
	mine, err := w.add(e, now)
	if err != nil {
		return err
	}
	w.commit.Lock()
	defer w.commit.Unlock()
	if !mine.done { // else somebody else has written it meanwhile
		w.flush(now)
	}
	return mine.err
}

// add puts a record among those to be written.
func (w *Window) add(e Entry, now time.Time) (*batch, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch answer := w.seen(e); {
	case w.broken != nil:
		return nil, w.broken
	case !now.Before(e.Expires) || !w.swept.Before(e.Expires):
		return nil, &ExpiredError{e, maxTime(now, w.swept)}
	case answer != admission.Fresh:
		return nil, &ReplayError{e, answer}
	}
	if len(w.spent) >= w.o.Max && w.sweep(now) == 0 {
		return nil, &FullError{w.o.Max}
	}
	u := use{e.ID, e.Expires.Unix()}
	if e.Expires.Nanosecond() > 0 {
		u.expires++
	}
	k := e.key()
	w.spent[k] = u
	w.pending = appendRecord(w.pending, k, u)
	w.records++
	w.batch.keys = append(w.batch.keys, k)
	return w.batch, nil
}

// sweep forgets what has expired, and says how much. The caller holds mu.
func (w *Window) sweep(now time.Time) int {
	n := 0
	for k, u := range w.spent {
		if !now.Before(time.Unix(u.expires, 0)) {
			delete(w.spent, k)
			n++
		}
	}
	if n > 0 {
		w.swept = maxTime(w.swept, now)
	}
	return n
}

// slack is how many records may be in the file beyond twice those that count, before it is written anew.
const slack = 4096

// flush makes durable what is pending. The caller holds commit.
func (w *Window) flush(now time.Time) {
	w.mu.Lock()
	pending, b := w.pending, w.batch
	w.pending, w.batch = nil, &batch{}
	if w.broken != nil { // it broke while this waited
		b.done, b.err = true, w.broken
		w.unspend(b.keys)
		w.mu.Unlock()
		return
	}
	var all []byte
	compact := w.records >= w.sweepAt && w.wasteful(now)
	if compact {
		all = make([]byte, 0, len(w.spent)*recordSize)
		for k, u := range w.spent { // with what is pending
			all = appendRecord(all, k, u)
		}
		w.records = len(w.spent)
	}
	swept := w.swept
	w.mu.Unlock()
	b.done = true
	if compact {
		b.err = w.create(all, swept)
	} else {
		b.err = w.append(groups(pending))
	}
	if b.err != nil {
		// What is on disk now is not known: a sync that failed cannot be repeated.
		b.err = fmt.Errorf("write %s: %w", w.o.Path, b.err)
		w.mu.Lock()
		w.broken = b.err
		w.unspend(b.keys)
		w.mu.Unlock()
	}
}

// unspend forgets documents. The caller holds mu.
func (w *Window) unspend(keys []key) {
	for _, k := range keys {
		delete(w.spent, k)
	}
}

// repair writes the file anew, from what was spent for certain, if it is not known what it holds.
func (w *Window) repair() error {
	w.mu.Lock()
	fine := w.broken == nil
	w.mu.Unlock()
	if fine {
		return nil
	}
	w.commit.Lock()
	defer w.commit.Unlock()
	w.mu.Lock()
	if w.broken == nil || w.closed {
		defer w.mu.Unlock()
		return w.broken
	}
	all := make([]byte, 0, len(w.spent)*recordSize)
	for k, u := range w.spent {
		all = appendRecord(all, k, u)
	}
	swept := w.swept
	w.mu.Unlock()
	if err := w.create(all, swept); err != nil {
		return fmt.Errorf("write %s: %w", w.o.Path, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken, w.records = nil, len(w.spent)
	return nil
}

// TakeBack undoes a Spend whose document came to nothing, so that it can be handed in again. It holds until the process ends: after that the
// document is spent.
func (w *Window) TakeBack(e Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if was, ok := w.spent[e.key()]; ok && was.id == e.ID {
		delete(w.spent, e.key())
	}
}

// wasteful forgets what has expired, and reports whether the file has much that does not count any more. The caller holds mu.
func (w *Window) wasteful(now time.Time) bool {
	w.sweep(now)
	w.sweepAt = max(w.records, 2*len(w.spent)) + slack
	return w.records > 2*len(w.spent)+slack
}

// append writes groups, each durable before the next. The caller holds commit.
func (w *Window) append(groups [][]byte) error {
	for _, g := range groups {
		if _, err := w.file.Write(g); err != nil {
			return err
		}
		if err := w.file.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// create replaces the file. The caller holds commit.
func (w *Window) create(records []byte, swept time.Time) error {
	data := header(swept)
	for _, g := range groups(records) {
		data = append(data, g...)
	}
	if err := disk.Replace(w.o.FS, w.o.Path, data); err != nil {
		return err
	}
	f, err := w.o.FS.Append(w.o.Path)
	if err != nil {
		return err
	}
	if w.file != nil {
		_ = w.file.Close() // the old file, which has no name any more
	}
	w.file = f
	return nil
}

// Len is how many documents are remembered.
func (w *Window) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.spent)
}

// Close gives the file back. It is for whoever called Open, when no Spend is running any more.
func (w *Window) Close() error {
	w.commit.Lock()
	defer w.commit.Unlock()
	w.mu.Lock()
	w.broken, w.closed = errors.New("the replay window is closed"), true
	w.mu.Unlock()
	return w.file.Close()
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }
