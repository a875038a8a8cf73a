package hammer

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/ledger/durable"
	"arch.network/attest/ledger/sequencer"
)

// writerArgument makes a program a writer that is made to be killed: it is followed by the ledger and its record of what was signed. It reads
// the seed of its keys from its standard input, and ends when that ends.
const writerArgument = "arch-ledger-hammer-writer"

// waitingLine says that another process writes.
const waitingLine = "waiting\n"

// writing is how many goroutines of a writer record decisions.
const writing = 8

// Main is a writer, if the arguments of the program say so.
func Main(args []string) (handled bool, code int) {
	if len(args) != 4 || args[1] != writerArgument {
		return false, 0
	}
	if err := writeForever(context.Background(), args[2], args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return true, 1
}

// writeForever records decisions as soon as nobody else does, and tells of each that was acknowledged.
func writeForever(ctx context.Context, dir, signed string) error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	var seed [32]byte
	text, err := hex.DecodeString(strings.TrimSpace(line))
	if err != nil {
		return fmt.Errorf("read seed: %w", err)
	}
	if copy(seed[:], text) != len(text) || len(text) != len(seed) {
		return fmt.Errorf("read seed: it has %d bytes, not %d", len(text), len(seed))
	}
	go func() {
		_, _ = io.Copy(io.Discard, in) // until whoever started us is gone
		os.Exit(1)
	}()
	keys, signer, err := writerKeys(seed)
	if err != nil {
		return err
	}
	log, err := openInTurn(ctx, sequencer.Options{Dir: dir, Signed: signed, Keys: keys})
	if err != nil {
		return err
	}
	recorder, err := sequencer.NewRecorder(ctx, log, sequencer.RecorderOptions{Signer: signer})
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards the output: a line is said whole, before its decision is built upon
	failed := make(chan error, writing)
	for i := range writing {
		go func() {
			for n := 0; ; n++ {
				job := attest.Document("job", digest.Of(fmt.Appendf(nil, "job %d of %d in process %d", n, i, os.Getpid())))
				e, err := recorder.Record(ctx, attest.Decision{Kind: "admission", Verdict: "accepted", Summary: "A made-up job was accepted."}, job)
				if err != nil {
					failed <- err
					return
				}
				mu.Lock()
				_, err = fmt.Printf("%d %d %s\n", e.Index, e.Sequence, e.ID)
				mu.Unlock()
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// openInTurn opens the ledger when no other process has it.
func openInTurn(ctx context.Context, opts sequencer.Options) (*sequencer.Log, error) {
	for said := false; ; said = true {
		log, err := sequencer.Open(ctx, opts)
		if !errors.As(err, new(*durable.InUseError)) {
			return log, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !said {
			fmt.Print(waitingLine)
		}
		time.Sleep(time.Millisecond)
	}
}

// parseAck reads what a writer says of an acknowledged decision.
func parseAck(line string) (e sequencer.Entry, err error) {
	var id string
	if _, err := fmt.Sscanf(line, "%d %d %s\n", &e.Index, &e.Sequence, &id); err != nil {
		return e, fmt.Errorf("a writer said %q: %w", line, err)
	}
	e.ID, err = digest.Parse(id)
	return e, err
}
