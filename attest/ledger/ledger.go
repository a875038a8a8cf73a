// Package ledger reads the append-only logs of nodes, and proves and checks what is in them. A log is a Merkle tree as in
// RFC 6962, published as C2SP tlog-tiles; its state is a checkpoint (C2SP tlog-checkpoint), a note that the log
// signs and witnesses cosign (C2SP signed-note, tlog-cosignature). The specifications are at https://c2sp.org.
//
// It promises that whatever it calls verified was signed by every key that the Policy has for the log, and cosigned by the Policy's quorum of
// witnesses, counted by public key; that an entry called included is under that very checkpoint; and that a proof made from tiles
// is checked against the checkpoint before anyone gets it.
//
// It never writes a log (attest/ledger/sequencer does), never trusts a log or witness that the Policy does not name, and links no
// network: whoever has the tiles hands them in.
package ledger

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Limits of what is read from others.
const (
	MaxNote   = 256 << 10 // bytes of a signed checkpoint; an ML-DSA-44 signature takes 3.3 kB of base64
	MaxPolicy = 64 << 10  // bytes of a policy
	MaxEntry  = 1<<16 - 1 // bytes of an entry (tlog-tiles, Log Entries)
	MaxOrigin = 255       // bytes of an origin (tlog-cosignature)
)

// Checkpoint is the state of a log: its first Size entries have the Merkle tree hash Root.
type Checkpoint struct {
	Origin string // names the log
	Size   int64
	Root   tlog.Hash
}

// String returns the checkpoint's text, which is what gets signed.
func (c Checkpoint) String() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// ParseCheckpoint reads the text of a note, without the signatures: what it says is true only if they were verified. See Policy.Open.
func ParseCheckpoint(text string) (Checkpoint, error) { return parseCheckpoint(text) }

// parseCheckpoint reads the text of a note. Extension lines, which the specification allows, are skipped.
func parseCheckpoint(text string) (Checkpoint, error) {
	refuse := func(format string, args ...any) (Checkpoint, error) {
		return Checkpoint{}, fmt.Errorf("read checkpoint: "+format, args...)
	}
	origin, rest, _ := strings.Cut(text, "\n")
	count, rest, _ := strings.Cut(rest, "\n")
	hash, rest, ended := strings.Cut(rest, "\n")
	if !ended {
		return refuse("it has fewer than three lines")
	}
	if origin == "" || len(origin) > MaxOrigin {
		return refuse("its origin has %d bytes, not 1 to %d", len(origin), MaxOrigin)
	}
	size, ok := ParseNumber(count)
	if !ok {
		return refuse("%q is no tree size", shorten(count))
	}
	root, ok := ParseHash(hash)
	if !ok {
		return refuse("%q is no root hash", shorten(hash))
	}
	for line := range strings.Lines(rest) {
		if line == "\n" || !strings.HasSuffix(line, "\n") {
			return refuse("an extension line is empty or not ended")
		}
	}
	if size == 0 && root != emptyRoot() {
		return refuse("an empty log cannot have the root %s", root)
	}
	return Checkpoint{Origin: origin, Size: size, Root: root}, nil
}

// emptyRoot is the hash of a log without entries: SHA-256 of nothing (RFC 6962 section 2.1).
func emptyRoot() tlog.Hash {
	h, err := tlog.TreeHash(0, nil)
	if err != nil {
		panic(err) // it reads nothing
	}
	return h
}

// ParseNumber reads a decimal number without sign and without leading zeros.
func ParseNumber(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 0 && strconv.FormatInt(n, 10) == text
}

// ParseHash reads standard base64 of 32 bytes, in its one spelling.
func ParseHash(text string) (tlog.Hash, bool) {
	var h tlog.Hash
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(data) != len(h) || base64.StdEncoding.EncodeToString(data) != text {
		return tlog.Hash{}, false
	}
	return tlog.Hash(data), true
}

// shorten keeps a stranger's text short in a message.
func shorten(text string) string {
	const most = 60
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
