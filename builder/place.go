package builder

import (
	"context"

	"arch.network/attest"
	"arch.network/attest/digest"
)

// Place has write make something at a temporary name beside path, then gives it its name in one step: it appears complete
// or not at all. What was there before is replaced.
func Place(path string, write func(temp string) error) error { return replace(path, write) }

// CopyTree copies a file or tree out of the store to the new path to, writable and with epoch, in Unix seconds, as
// modification time of everything. What arrives is what has the NAR hash, or the error is a *DamagedError.
func CopyTree(ctx context.Context, nar digest.SHA256, from, to string, epoch int64) error {
	return copyOut(ctx, Output{Output: attest.Output{NAR: nar}, Path: from}, to, epoch)
}
