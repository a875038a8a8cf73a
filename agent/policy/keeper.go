package policy

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"arch.network/agent/disk"
	"arch.network/attest/docfile"
	"arch.network/attest/dsse"
)

// DefaultSkew is how far a clock may be behind the newest time that a signature vouches for: C2SP cosignatures are in whole
// seconds, and a minute is what NTP-less machines drift in weeks.
const DefaultSkew = time.Minute

// floorFile is the name of the floor in the state directory.
const floorFile = "policy-floor.json"

// Options say what a Keeper keeps.
type Options struct {
	TrustRoot string // file; believed because it lies where it lies, and after the first one because of its quorum
	Policy    string // file; signed by the trust root's policy role
	State     string // directory that only the agent may write to, for the floor
	// Skew is how far the clock may be behind the newest time that a signature vouches for. Zero: DefaultSkew.
	Skew time.Duration
	// Report is told of every change: what came into force, what was refused (once, while the file stays the same). It is
	// called by whoever calls Open, Reload and Run, never by two at once, and must not call the Keeper. Nil: nobody is told.
	Report func(Event)
	// Now is the clock. Nil: time.Now.
	Now func() time.Time

	files disk.FS // nil: the operating system's
}

// Event is a change. Exactly one field is set.
type Event struct {
	InForce *Active       // from now on
	Refused *RefusedError // what was in force stays, as long as it may
}

// Keeper holds the trust root and the policy in force. All methods may be called by several goroutines at once.
type Keeper struct {
	o Options

	reload sync.Mutex // held while files are read and the floor is written; guards told
	told   string     // the last refusal, so that it is reported once

	mu      sync.RWMutex // guards what follows
	floor   floor
	active  *Active // nil: nothing may run
	refused *RefusedError
}

// Open reads the floor, and both files as Reload does. Files that are refused are no error: they are reported, and what the
// floor remembers is in force, if it still verifies. The error is for a floor that cannot be read or written.
func Open(o Options) (*Keeper, error) {
	if o.TrustRoot == "" || o.Policy == "" || o.State == "" {
		return nil, errors.New("open policy: trust root, policy and state directory must be named")
	}
	if o.Skew == 0 {
		o.Skew = DefaultSkew
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.files == nil {
		o.files = disk.OS{}
	}
	k := &Keeper{o: o}
	var err error
	if k.floor, err = readFloor(o.files, k.floorPath()); err != nil {
		return nil, err
	}
	if err := k.Reload(); err != nil {
		if _, ok := errors.AsType[*RefusedError](err); !ok {
			return nil, err
		}
	}
	return k, nil
}

func (k *Keeper) floorPath() string { return filepath.Join(k.o.State, floorFile) }

// ErrNone says that no policy is in force.
var ErrNone = errors.New("no policy is in force")

// ClockError says that this machine's clock is behind a time that a signature vouches for.
type ClockError struct{ At, Newest time.Time }

func (e *ClockError) Error() string {
	return fmt.Sprintf("this machine's clock says %s, but signatures vouch for %s", instant(e.At), instant(e.Newest))
}

// Hint tells the way out.
func (e *ClockError) Hint() string { return "set the clock" }

// Current returns what new jobs are judged by at a time. The error is ErrNone or wraps it with the reason, or is a *ClockError;
// then nothing new may run. It is cheap: call it for every job.
func (k *Keeper) Current(at time.Time) (*Active, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if newest := k.floor.newestTime; at.Add(k.o.Skew).Before(newest) {
		return nil, &ClockError{at, newest}
	}
	switch {
	case k.active == nil && k.refused != nil:
		return nil, fmt.Errorf("%w: %w", ErrNone, k.refused)
	case k.active == nil:
		return nil, ErrNone
	case !at.Before(k.active.ends):
		return nil, fmt.Errorf("%w: policy %s version %d expired on %s, and its offline grace is over", ErrNone, k.active.policy.Metadata.Name, k.active.policy.Spec.Version, instant(k.active.expires))
	}
	return k.active, nil
}

// Refused returns why what lies in the files is not in force; nil if it is.
func (k *Keeper) Refused() *RefusedError {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.refused
}

// Observe is told of a time that somebody's verified signature vouches for, such as a witness's cosignature. From then on
// an earlier clock is refused, also after a restart. A time that is ahead of the clock by more than the skew is not believed.
func (k *Keeper) Observe(t time.Time) error {
	if t.After(k.o.Now().Add(k.o.Skew)) {
		return &ClockError{k.o.Now(), t}
	}
	k.reload.Lock()
	defer k.reload.Unlock()
	f := k.current()
	if !t.After(f.newest().Add(k.o.Skew)) {
		return nil // not worth a write
	}
	f.raise(t)
	return k.commit(f)
}

// Reload reads both files again: for SIGHUP. The error is a *RefusedError if what lies there is not what is in force now.
func (k *Keeper) Reload() error {
	k.reload.Lock()
	defer k.reload.Unlock()
	at := k.o.Now()
	f := k.current()
	root, no := k.loadRoot(&f, at)
	var next *Active
	if root != nil {
		var noPolicy *RefusedError
		next, noPolicy = k.loadPolicy(&f, root, at)
		if no == nil {
			no = noPolicy
		}
	}
	if err := k.commit(f); err != nil {
		return err
	}
	k.mu.Lock()
	was := k.active
	k.active, k.refused = next, no
	k.mu.Unlock()
	k.report(was, next, no)
	if no != nil {
		return no
	}
	return nil
}

// loadRoot returns the trust root that is in force from now on: that of the file, or the last one.
func (k *Keeper) loadRoot(f *floor, at time.Time) (*accepted, *RefusedError) {
	env, err := docfile.Read(k.o.TrustRoot)
	var no *RefusedError
	if err != nil {
		no = refused(TrustRoot, RuleFile, err)
	} else {
		var root *accepted
		if root, no = acceptRoot(*f, env, at); no == nil {
			f.Root = root.document()
			return root, nil
		}
	}
	no.File = k.o.TrustRoot
	if f.Root.isZero() {
		return nil, no
	}
	last, err := dsse.Parse(f.Root.Envelope)
	if err != nil {
		return nil, no
	}
	root, err := openRoot(last)
	if err != nil {
		return nil, no
	}
	return root, no
}

// loadPolicy returns the policy that is in force from now on: that of the file, or the last one if the trust root still
// vouches for it.
func (k *Keeper) loadPolicy(f *floor, root *accepted, at time.Time) (*Active, *RefusedError) {
	env, err := docfile.Read(k.o.Policy)
	var no *RefusedError
	if err != nil {
		no = refused(Policy, RuleFile, err)
	} else {
		var next *Active
		if next, no = acceptPolicy(*f, root.trust, env, at, k.o.Skew); no == nil {
			f.Policy = document{next.policy.Metadata.Name, next.policy.Spec.Version, next.id, env.Marshal()}
			f.raise(created(next.policy.Metadata))
			return next, nil
		}
	}
	no.File = k.o.Policy
	if f.Policy.isZero() {
		return nil, no
	}
	last, err := dsse.Parse(f.Policy.Envelope)
	if err != nil {
		return nil, no
	}
	old, err := New(root.trust, last, at)
	if err != nil {
		return nil, no
	}
	return old, no
}

func (k *Keeper) current() floor {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.floor
}

// commit makes a floor durable, if it is another one. The caller holds reload.
func (k *Keeper) commit(f floor) error {
	if !f.same(k.current()) {
		if err := f.write(k.o.files, k.floorPath()); err != nil {
			return err
		}
	}
	f.newestTime = f.newest()
	k.mu.Lock()
	k.floor = f
	k.mu.Unlock()
	return nil
}

// report tells what changed. The caller holds reload.
func (k *Keeper) report(was, next *Active, no *RefusedError) {
	told := ""
	if no != nil {
		told = no.ID.String() + no.Error()
	}
	again := told == k.told
	k.told = told
	if k.o.Report == nil {
		return
	}
	if next != nil && (was == nil || was.id != next.id || was.trust.ID() != next.trust.ID()) {
		k.o.Report(Event{InForce: next})
	}
	if no != nil && !again {
		k.o.Report(Event{Refused: no})
	}
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }
