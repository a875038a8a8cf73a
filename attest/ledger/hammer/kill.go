package hammer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/notekey"
	"arch.network/attest/ledger/sequencer"
)

// KillOptions say how often. Whoever calls Kill MUST give Main its arguments first: writers are the program itself, started again.
type KillOptions struct {
	Dir    string // of the new ledger
	Signed string // its record of what was signed
	Kills  int    // of processes, with SIGKILL
	// Program is started for each writer. Empty: the running one.
	Program string
}

// KillResult is what was done, and held.
type KillResult struct {
	Kills        int   `json:"kills"`
	Acknowledged int64 `json:"acknowledged"` // by those that were killed
	Entries      int64 `json:"entries"`      // in the ledger after all; those that were not answered may be there, too
	Waited       int   `json:"waited"`       // writers that found another one at work, and took over from it
	Checkpoints  int   `json:"checkpoints"`  // seen between the kills, each of which continues the one before
}

// longestLife is how long a writer lives at most after its first acknowledgement.
const longestLife = 100 * time.Millisecond

// Kill has two processes at once want to write a ledger, kills the one that does, at any moment after its first acknowledgement, and puts a
// new one in its place. The error says what did not hold: an acknowledged decision is lost, or stands elsewhere, one place was given
// twice, a checkpoint does not continue the one before, or the ledger is not whole.
func Kill(ctx context.Context, opts KillOptions) (*KillResult, error) {
	if _, err := os.Lstat(opts.Dir); err == nil {
		return nil, &existsError{opts.Dir}
	}
	if opts.Program == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		opts.Program = self
	}
	k := &killer{opts: opts, acks: map[int64]digest.SHA256{}}
	if _, err := rand.Read(k.seed[:]); err != nil {
		return nil, err
	}
	err := k.run(ctx)
	if err == nil {
		err = k.check(ctx)
	}
	if err != nil {
		return nil, err
	}
	return &k.result, nil
}

// killer is the life of a ledger whose writers die.
type killer struct {
	opts   KillOptions
	seed   [32]byte
	seen   ledger.Checkpoint
	acks   map[int64]digest.SHA256 // ids by index
	result KillResult
}

func (k *killer) run(ctx context.Context) (err error) {
	var two [2]*victim
	defer func() {
		for _, v := range two {
			if v != nil {
				v.kill()
				err = errors.Join(err, v.end())
			}
		}
	}()
	for i := range two {
		if two[i], err = k.start(ctx); err != nil {
			return err
		}
	}
	for k.result.Kills < k.opts.Kills {
		at := 0
		select {
		case <-two[0].first:
		case <-two[1].first:
			at = 1
		case <-ctx.Done():
			return ctx.Err()
		}
		life, err := rand.Int(rand.Reader, big.NewInt(int64(longestLife)))
		if err != nil {
			return err
		}
		select {
		case <-time.After(time.Duration(life.Int64())):
		case <-ctx.Done():
			return ctx.Err()
		}
		v := two[at]
		v.kill()
		two[at] = nil
		if err := v.end(); err != nil {
			return err
		}
		k.result.Kills++
		if err := k.take(v); err != nil {
			return err
		}
		if err := k.look(ctx); err != nil {
			return err
		}
		if two[at], err = k.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take notes what a writer acknowledged before it was killed.
func (k *killer) take(v *victim) error {
	if v.waited {
		k.result.Waited++
	}
	for _, e := range v.acks {
		if id, ok := k.acks[e.Index]; ok {
			return fmt.Errorf("place %d was given twice: to %s and to %s", e.Index, id, e.ID)
		}
		k.acks[e.Index] = e.ID
	}
	return nil
}

// look reads the published checkpoint as a stranger does, while another process may write.
func (k *killer) look(ctx context.Context) error {
	dir := ledger.Dir(k.opts.Dir)
	policy, err := dir.ReadPolicy()
	if err != nil {
		return err
	}
	data, err := dir.ReadCheckpoint(ctx)
	if errors.Is(err, fs.ErrNotExist) && k.seen.Origin == "" {
		return nil // nobody lived long enough to sign one
	}
	if err != nil {
		return err
	}
	signed, err := policy.Open(data)
	if err != nil {
		return err
	}
	if k.seen.Origin != "" {
		if signed.Size < k.seen.Size {
			return fmt.Errorf("a checkpoint of %d entries was published after one of %d", signed.Size, k.seen.Size)
		}
		proof, err := ledger.NewProver(signed.Checkpoint, dir, 0).Consistency(ctx, k.seen.Size)
		if err != nil {
			return err
		}
		if err := signed.Continues(k.seen, proof); err != nil {
			return err
		}
	}
	k.seen = signed.Checkpoint
	k.result.Checkpoints++
	return nil
}

// check lets a last writer put what the journal holds into the ledger, recomputes all of it, and compares it with what was acknowledged.
func (k *killer) check(ctx context.Context) error {
	keys, signer, err := writerKeys(k.seed)
	if err != nil {
		return err
	}
	log, err := sequencer.Open(ctx, sequencer.Options{Dir: k.opts.Dir, Signed: k.opts.Signed, Keys: keys})
	if err != nil {
		return err
	}
	if err := log.Close(ctx); err != nil {
		return err
	}
	var chain attest.Chain
	found := 0
	visit := func(index int64, entry []byte) error {
		r, err := attest.ReadRecord(entry, signer.Public())
		if err != nil {
			return err
		}
		if id, ok := k.acks[index]; ok {
			if id != r.ID {
				return fmt.Errorf("entry %d is %s, and %s was acknowledged there", index, r.ID, id)
			}
			found++
		}
		return chain.Add(r)
	}
	report, err := ledger.Check(ctx, log.Policy(), log.Dir(), visit)
	if err != nil {
		return err
	}
	if !report.OK() {
		return fmt.Errorf("the ledger is not whole: %s: %s, and %d more faults", report.Faults[0].Path, report.Faults[0].What, len(report.Faults)-1)
	}
	if n, _, err := chain.End(); err != nil || n != report.Tree.Size {
		return fmt.Errorf("a chain of %d decisions in a ledger of %d: %w", n, report.Tree.Size, err)
	}
	if err := k.look(ctx); err != nil {
		return err
	}
	k.result.Entries, k.result.Acknowledged = report.Tree.Size, int64(len(k.acks))
	if lost := len(k.acks) - found; lost > 0 {
		return fmt.Errorf("%d of %d acknowledged decisions are lost", lost, len(k.acks))
	}
	return nil
}

// victim is a writer in a process of its own.
type victim struct {
	cmd    *exec.Cmd
	input  io.Closer
	stderr bytes.Buffer
	first  chan struct{} // closed at the first acknowledgement, or at the end
	read   chan struct{} // closed when all that it said was read; then the rest may be read
	acks   []sequencer.Entry
	waited bool
	bad    error
}

func (k *killer) start(ctx context.Context) (*victim, error) {
	v := &victim{cmd: exec.CommandContext(ctx, k.opts.Program, writerArgument, k.opts.Dir, k.opts.Signed), first: make(chan struct{}), read: make(chan struct{})}
	v.cmd.Stderr = &v.stderr
	in, err := v.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	v.input = in
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(in, hex.EncodeToString(k.seed[:])+"\n"); err != nil {
		v.kill()
		return nil, errors.Join(err, v.cmd.Wait())
	}
	go v.listen(out)
	return v, nil
}

// listen reads what a writer says. What a kill has cut off was not said.
func (v *victim) listen(out io.Reader) {
	defer close(v.read)
	first := sync.OnceFunc(func() { close(v.first) })
	defer first()
	for r := bufio.NewReader(out); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line == waitingLine {
			v.waited = true
			continue
		}
		e, err := parseAck(line)
		if err != nil {
			v.bad = err
			return
		}
		v.acks = append(v.acks, e)
		first()
	}
}

func (v *victim) kill() { _ = v.cmd.Process.Kill() }

// end waits for a writer that was killed. One that ended by itself had a reason.
func (v *victim) end() error {
	<-v.read
	err := v.cmd.Wait()
	v.input.Close()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		return fmt.Errorf("a writer ended by itself: %w: %s", err, strings.TrimSpace(v.stderr.String()))
	}
	return v.bad
}

// writerKeys are those of the ledger and of the node, which all writers of one ledger have.
func writerKeys(seed [32]byte) (*notekey.Keys, *identity.Key, error) {
	keys, err := notekey.Generate(origin, &stream{seed: seed, purpose: 'l'})
	if err != nil {
		return nil, nil, err
	}
	signer, err := identity.Generate(identity.Ed25519, &stream{seed: seed, purpose: 'n'})
	return keys, signer, err
}

// stream gives bytes that follow from a seed.
type stream struct {
	seed    [32]byte
	purpose byte
	count   byte
	rest    []byte
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		sum := sha256.Sum256(append(s.seed[:], s.purpose, s.count))
		s.rest = sum[:]
		s.count++
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
