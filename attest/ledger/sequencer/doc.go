// Package sequencer writes the append-only log of a node: it gives each entry its place, makes it durable, and signs checkpoints. What it writes is
// what attest/ledger reads, a directory that any server of static files can publish (C2SP tlog-tiles).
//
// It promises:
//
//   - An index is returned only when the entry is on the disk with it: in the journal, from where it gets into the tiles a moment later, many
//     together, or when the log is opened again. After a failed write or sync nothing is acknowledged until the state was read again from the
//     disk (Recover).
//   - Entries become durable in the order in which they were handed over, a whole group at a time. An entry that was handed over and not
//     acknowledged, because the process was killed or a write failed, is either in the log whole, or not at all; then no later one is either.
//   - A checkpoint is signed only after the state it shows was put on record, in a file that does not lie with the log, and only if it
//     continues what is on record. A log that was restored from an old copy, lost entries or was forked is refused, when it is opened and
//     when it would be signed. What was acknowledged after the last checkpoint, in about a tenth of a second, or three where the disk is slow, is not on that record.
//   - One process at a time writes.
//
// A Recorder keeps the decisions of a node in such a log: it gives them their sequence, names the one before, and signs. After a crash it
// finds the sequence again from the log's own end, so that no number is missing and none is used twice.
//
// It never serves the network, never asks witnesses (attest/ledger/witness does), and never repairs: what is wrong is refused, with the
// way out.
//
// The storage of the tiles is tessera's, which enters through this package. To put a group into it takes a dozen waits for the disk, whatever
// the group's size; to write it to the journal takes one.
package sequencer
