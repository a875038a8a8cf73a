package witness

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"arch.network/attest/ledger"
	"arch.network/attest/ledger/durable"
)

// Log is a log whose checkpoints are to be cosigned, such as a *sequencer.Log.
type Log interface {
	// Prover returns the newest checkpoint and what proves things under it; the error is fs.ErrNotExist if there is none yet.
	Prover(ctx context.Context) (*ledger.Signed, *ledger.Prover, error)
}

// AskerOptions say whom an Asker asks, and how often.
type AskerOptions struct {
	Policy *ledger.Policy // how others verify the log; those of its witnesses that have an address are asked
	Log    Log
	Dir    string           // where the log lies: the cosigned checkpoint is kept there
	State  string           // file that remembers what each witness cosigned last
	Every  time.Duration    // between two looks at the log; zero: DefaultEvery
	Now    func() time.Time // nil: time.Now
	HTTP   *http.Client     // nil: one that follows no redirect and gives up after 20 s
	Failed func(error)      // is told why a look at the log was in vain; nil: nobody is
}

// The pace of an Asker. A witness that does not cosign is asked after twice the time each time, up to maxPause.
const (
	DefaultEvery = 2 * time.Second
	maxPause     = 10 * time.Minute
	askTimeout   = 20 * time.Second
	maxState     = 1 << 20
)

// Asker has the newest checkpoint of a log cosigned, again and again, as long as Run runs. What witnesses do or do not do never stops the log.
//
// It keeps the newest checkpoint that has the policy's quorum; while none has it, the newest that anybody cosigned.
type Asker struct {
	o      AskerOptions
	client *Client
	last   *ledger.Signed // what Round asked about last, with what was given; nil: nothing was

	mu       sync.Mutex // guards what follows
	states   []State    // in the order of the policy
	cosigned int64      // entries that the quorum has cosigned
	quorate  bool       // what is kept has the quorum
}

// State is what is known of one witness, a line of the policy.
type State struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"`            // entries of the newest checkpoint that it cosigned
	At       time.Time `json:"at,omitzero"`     // when it did, by our clock
	Failures int       `json:"failures"`        // requests in vain since then
	Error    string    `json:"error,omitempty"` // why the last of them was
	Cure     string    `json:"cure,omitempty"`  // the way out of that, if one is known
	Again    time.Time `json:"again,omitzero"`  // when it is asked next, after a request in vain
	url      string
}

// NewAsker reads what witnesses said before. It asks nobody yet.
func NewAsker(o AskerOptions) (*Asker, error) {
	o.Every = cmp.Or(o.Every, DefaultEvery)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{Timeout: askTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	a := &Asker{o: o, client: NewClient(o.Policy, o.HTTP)}
	for _, path := range []string{o.State, filepath.Join(o.Dir, ledger.CosignedPath)} {
		if err := durable.Sweep(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	var before []State
	data, err := durable.ReadFile(o.State, maxState)
	if err == nil {
		err = json.Unmarshal(data, &before)
	}
	if err == nil && slices.ContainsFunc(before, func(s State) bool { return s.Size < 0 }) {
		err = errors.New("a size is negative")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read what witnesses said: %w; it is a memory only: remove %s to do without", err, o.State)
	}
	for _, w := range o.Policy.Witnesses() {
		s := State{Name: w.Name}
		if i := slices.IndexFunc(before, func(b State) bool { return b.Name == w.Name }); i >= 0 {
			s = before[i]
		}
		s.Failures, s.Error, s.Cure, s.Again, s.url = 0, "", "", time.Time{}, w.URL
		a.states = append(a.states, s)
	}
	if note, err := ledger.Dir(o.Dir).ReadCosigned(); err == nil {
		if signed, err := o.Policy.Open(note); err == nil {
			a.cosigned, a.quorate = signed.Size, true
		}
	}
	return a, nil
}

// Run asks until ctx ends.
func (a *Asker) Run(ctx context.Context) error {
	tick := time.NewTicker(a.o.Every)
	defer tick.Stop()
	for {
		if err := a.Round(ctx); err != nil && ctx.Err() == nil {
			a.o.Failed(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Witnesses returns what is known of each witness, in the order of the policy, and how many entries the quorum has cosigned.
func (a *Asker) Witnesses() (list []State, cosigned int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.states), a.cosigned
}

// Round looks at the log once, and asks those who have not cosigned its newest checkpoint and are not to be left alone yet. What a witness said is
// in its State; the error is of our own files or log.
func (a *Asker) Round(ctx context.Context) error {
	signed, prover, err := a.o.Log.Prover(ctx)
	if errors.Is(err, fs.ErrNotExist) || err == nil && signed.Size == 0 {
		return nil // there is nothing to cosign yet
	}
	if err != nil {
		return err
	}
	base := signed.Note
	if a.last != nil && a.last.Checkpoint == signed.Checkpoint {
		base = a.last.Note // more have cosigned it than what is kept may show
	}
	note, answers, err := a.client.Ask(ctx, base, prover.Consistency, a.due)
	if err != nil {
		return fmt.Errorf("have the ledger cosigned: %w", err)
	}
	if len(answers) == 0 {
		return nil
	}
	with, err := a.o.Policy.Read(note)
	if err != nil {
		return fmt.Errorf("have the ledger cosigned: %w", err)
	}
	a.last = with
	if err := a.keep(with); err != nil {
		return err
	}
	return a.remember(with, answers)
}

// due reports whether the witness at an address may be asked now.
func (a *Asker) due(url string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.o.Now()
	return !slices.ContainsFunc(a.states, func(s State) bool { return s.url == url && now.Before(s.Again) })
}

// keep writes the checkpoint beside the log, unless what is there is worth more.
func (a *Asker) keep(s *ledger.Signed) error {
	_, err := a.o.Policy.Open(s.Note)
	quorate := err == nil
	a.mu.Lock()
	worse := a.quorate && !quorate
	a.mu.Unlock()
	if worse || len(s.Witnesses) == 0 {
		return nil
	}
	if err := durable.WriteFile(filepath.Join(a.o.Dir, ledger.CosignedPath), s.Note, 0o644); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if quorate {
		a.cosigned, a.quorate = s.Size, true
	}
	return nil
}

// remember notes what the witnesses said.
func (a *Asker) remember(s *ledger.Signed, answers []Answer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.o.Now().UTC()
	for i := range a.states {
		w := &a.states[i]
		at := slices.IndexFunc(answers, func(x Answer) bool { return slices.Contains(x.Names, w.Name) })
		if at < 0 {
			continue
		}
		err := answers[at].Err
		switch {
		case slices.Contains(s.Witnesses, w.Name):
			*w = State{Name: w.Name, Size: s.Size, At: now, url: w.url}
			continue
		case err == nil:
			err = fmt.Errorf("ask witness %s: it cosigns with another key only", w.Name)
		}
		w.Failures++
		w.Error, w.Cure, w.Again = err.Error(), "", now.Add(pause(a.o.Every, w.Failures))
		var hint interface{ Hint() string }
		if errors.As(err, &hint) {
			w.Cure = hint.Hint()
		}
	}
	data, err := json.Marshal(a.states)
	if err != nil {
		return err
	}
	return durable.WriteFile(a.o.State, data, 0o600)
}

// pause is how long a witness is left alone after so many requests in vain.
func pause(every time.Duration, failures int) time.Duration {
	for range failures {
		if every >= maxPause {
			return maxPause
		}
		every *= 2
	}
	return min(every, maxPause)
}
