package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"arch.network/attest/digest"
)

// maxSpent bounds how many documents are remembered, and maxSpentFile the bytes of the file.
const (
	maxSpent     = 1 << 16
	maxSpentFile = 16 << 20
)

// ledger remembers, over restarts, what must not come again: how often each document with a nonce was started, until it expires,
// and the highest versions of the trust root and of the policy that were in force. It is one small file, replaced as a whole before a job starts.
type ledger struct {
	path string

	mu    sync.Mutex // guards state
	state spent
}

type spent struct {
	Started  map[digest.SHA256]uses `json:"started"`
	Versions map[string]int64       `json:"versions"` // highest one in force, by kind and metadata.name
}

type uses struct {
	Times   int       `json:"times"`
	Expires time.Time `json:"expires"`
}

func openLedger(path string) (*ledger, error) {
	l := &ledger{path: path, state: spent{map[digest.SHA256]uses{}, map[string]int64{}}}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSpentFile {
		return nil, &fileError{path, "it is no regular file of at most 16 MiB", ""}
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &l.state)
	}
	if err != nil {
		// Forgetting would let what was spent come again, so this is for a person to decide.
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if l.state.Started == nil || l.state.Versions == nil {
		return nil, &fileError{path, "it lacks what it must hold", "remove it only if no document with a nonce may still be valid"}
	}
	return l, nil
}

// noOlder refuses a trust root or policy that is older than one of its name that was in force.
func (l *ledger) noOlder(t trust) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := false
	for _, d := range []struct {
		what    string
		version int64
	}{{"TrustRoot " + t.root.Name(), t.root.Version()}, {"Policy " + t.policy.Metadata.Name, t.policy.Spec.Version}} {
		was, known := l.state.Versions[d.what]
		switch {
		case d.version < was:
			return fmt.Errorf("%s: version %d, but version %d was in force: %w", d.what, d.version, was, errRollback)
		case !known && len(l.state.Versions) >= maxSpent:
			return fmt.Errorf("%s: %d other documents are remembered", d.what, len(l.state.Versions))
		}
		changed = changed || d.version > was
		l.state.Versions[d.what] = d.version
	}
	if !changed {
		return nil
	}
	return l.save()
}

// spend counts one start of a document with a nonce.
func (l *ledger) spend(a *admitted, now time.Time) error {
	if a.doc.Spec.Nonce == "" {
		return nil
	}
	expires, err := time.Parse(time.RFC3339, a.doc.Metadata.Expires)
	if err != nil {
		return refuse(CodeReplay, "", "metadata.expires: %v", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, u := range l.state.Started {
		if !now.Before(u.Expires) {
			delete(l.state.Started, id)
		}
	}
	u := l.state.Started[a.id]
	if most := 1 + a.doc.Spec.Retries; u.Times >= most {
		return refuse(CodeReplay, "have a document with another nonce signed", "job %s was started %d times, as often as its nonce and retries allow", a.doc.Metadata.Name, u.Times)
	}
	if u.Times == 0 && len(l.state.Started) >= maxSpent {
		return refuse(CodeBusy, "try again when some of them have expired", "%d documents with a nonce are remembered already", maxSpent)
	}
	l.state.Started[a.id] = uses{u.Times + 1, expires}
	return l.save()
}

// save replaces the file, durably. The caller holds mu.
func (l *ledger) save() (err error) {
	data, err := json.Marshal(l.state)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(l.path), ".spent-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), l.path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
