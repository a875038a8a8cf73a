// Package archive keeps what replaying a job needs, moves it between machines as one file, and replays it.
//
// An Entry is a list of names: the document, every object of the store that went in or came out, and the signed statements. It holds no content; whoever keeps it (package executor) keeps roots of the store for what
// it names, so that garbage collection removes none of it. What the policy says must not be kept, for licence or privacy, is in it as
// its pin alone.
//
// # A file
//
// Export writes an entry with all that it names as one tar archive, whose bytes follow from the entry alone; Import reads one, which
// may come from anybody: bounded, strictly in order, and everything in it is hashed before it is kept.
//
//	entry.json           the Entry, in canonical form
//	envelope.json        the Job as it was handed in
//	statements/HEX       DSSE envelopes, by statement id, sorted
//	blobs/HEX            by SHA-256, sorted
//	trees/HEX.nar        NARs by SHA-256, sorted
//
// # Replaying
//
// Replay runs the job again from nothing but what the entry names, and compares outputs, text, status and gas. What differs becomes a
// signed negative receipt.
package archive
