package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"arch.network/attest/digest/nar"
	"arch.network/attest/manifest"
	"arch.network/builder/store"
)

// storePath copies a Nix or Guix store path of this machine, if its NAR hash is the pinned one.
func (f *Fetcher) storePath(ctx context.Context, ref manifest.Ref) error {
	if _, err := os.Lstat(ref.Location); errors.Is(err, fs.ErrNotExist) {
		return &MissingError{Inputs: []string{ref.String()}, Cure: storeCure(ref.Location)}
	}
	f.log(Event{Kind: EventStart, What: ref.Location})
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(nar.Dump(ctx, w, ref.Location, nar.Options{}))
	}()
	// What is hashed is what is stored: the path may change while it is read.
	_, err := f.Store.AddTree(ctx, r, ref.Digest)
	r.CloseWithError(io.ErrClosedPipe)
	<-done
	if m, ok := errors.AsType[*store.MismatchError](err); ok {
		return pinMismatch(ref.String(), m.Want, m.Got)
	}
	if err != nil {
		return err
	}
	f.log(Event{Kind: EventDone, What: ref.Location})
	return nil
}

func storeCure(path string) string {
	if strings.HasPrefix(path, "/gnu/") {
		return fmt.Sprintf("`guix build %s` gets it from Guix's substitutes, or name an archive that holds it", path)
	}
	return fmt.Sprintf("`nix-store --realise %s` gets it from Nix's caches, or name an archive that holds it", path)
}
