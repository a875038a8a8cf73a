package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/builder/store"
)

// MaxStatement is how large the envelope of a statement may be, in bytes.
const MaxStatement = 16 << 20

// Bundle is an entry with the small things that it names. The large ones are in a store.
type Bundle struct {
	Entry      *Entry
	Envelope   []byte                   // of the Job
	Statements map[digest.SHA256][]byte // by id: the result and the runs
}

// statementIDs are those that the entry names, sorted, each once.
func (e *Entry) statementIDs() []digest.SHA256 {
	out := append([]digest.SHA256{e.Result}, e.Runs...)
	slices.SortFunc(out, func(a, b digest.SHA256) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(out)
}

// check wants the bundle to hold what its entry names, and nothing else.
func (b *Bundle) check() error {
	if digest.Of(b.Envelope) != b.Entry.Envelope {
		return fmt.Errorf("archive of job %s: its envelope is not the one that the entry names", b.Entry.Job)
	}
	env, err := dsse.Parse(b.Envelope)
	if err != nil {
		return fmt.Errorf("archive of job %s: %w", b.Entry.Job, err)
	}
	if env.ID() != b.Entry.Job {
		return fmt.Errorf("archive of job %s: its envelope holds the document %s", b.Entry.Job, env.ID())
	}
	node, err := identity.ParsePublicKey(b.Entry.Node)
	if err != nil {
		return fmt.Errorf("archive of job %s: node: %w", b.Entry.Job, err)
	}
	for _, id := range b.Entry.statementIDs() {
		if err := checkStatement(id, b.Statements[id], node); err != nil {
			return err
		}
	}
	if err := b.agrees(); err != nil {
		return fmt.Errorf("archive of job %s: %w", b.Entry.Job, err)
	}
	return nil
}

// agrees wants the entry to say of the result and the runs what their statements say.
func (b *Bundle) agrees() error {
	e := b.Entry
	claim, doc, err := b.open()
	if err != nil {
		return err
	}
	result, err := claim.JobResult()
	if err != nil {
		return err
	}
	var outputs []attest.JobOutput
	for _, o := range e.Outputs {
		outputs = append(outputs, attest.JobOutput{Name: o.Name, NAR: o.NAR, File: o.File})
	}
	printed := slices.ContainsFunc(claim.Subject, func(s attest.ResourceDescriptor) bool { return s.Name == attest.SubjectStdout })
	length := int64(0)
	if printed {
		length = 1 // any: what it was is in its digest
	}
	switch {
	case e.Name != doc.Metadata.Name:
		return fmt.Errorf("the entry calls it %q, the document %q", e.Name, doc.Metadata.Name)
	case int64(min(e.Gas, manifest.MaxInteger)) != result.Gas.Used:
		return fmt.Errorf("the entry says that it used %d gas, the result %d", e.Gas, result.Gas.Used)
	case !printed && e.Stdout != digest.Of(nil):
		return errors.New("the entry says that it printed something, the result that it did not")
	case !reflect.DeepEqual(attest.JobSubjects(outputs, e.Stdout, length), claim.Subject):
		return errors.New("the entry names other outputs than the result")
	}
	for _, id := range e.Runs {
		env, err := dsse.ParseLimit(b.Statements[id], MaxStatement)
		if err != nil {
			return err
		}
		statement, err := attest.ParseStatement(env.Payload)
		if err != nil {
			return err
		}
		run, err := statement.JobRun()
		if err != nil {
			return fmt.Errorf("run %s: %w", id, err)
		}
		if run.JobID != e.Job {
			return fmt.Errorf("run %s is of another job", id)
		}
	}
	return nil
}

// checkStatement wants a statement to have its id, and to be signed by the node that the entry names, whoever that is.
func checkStatement(id digest.SHA256, data []byte, node identity.PublicKey) error {
	env, err := dsse.ParseLimit(data, MaxStatement)
	if err != nil {
		return fmt.Errorf("archive: statement %s: %w", id, err)
	}
	if env.ID() != id {
		return fmt.Errorf("archive: statement %s is %s", id, env.ID())
	}
	if len(env.Signatures) != 1 || env.Signatures[0].KeyID != dsse.KeyID(node) || !bytes.Equal(env.Marshal(), data) || len(env.Verified([]identity.PublicKey{node})) != 1 {
		return fmt.Errorf("archive: statement %s is not signed by %s alone", id, node)
	}
	return nil
}

// Export writes a bundle with every object of its entry. What the store has is hashed again on the way: what is not what its name says is an
// error, and so is what is missing. The same bundle gives the same bytes.
func Export(ctx context.Context, w io.Writer, b *Bundle, s *store.Store) error {
	data, err := b.Entry.Encode()
	if err != nil {
		return err
	}
	if err := b.check(); err != nil {
		return err
	}
	t := tar.NewWriter(w)
	files := []file{{"entry.json", data}, {"envelope.json", b.Envelope}}
	for _, id := range b.Entry.statementIDs() {
		files = append(files, file{"statements/" + id.Hex(), b.Statements[id]})
	}
	for _, f := range files {
		if err := writeFile(t, f.name, f.data); err != nil {
			return err
		}
	}
	for _, o := range b.Entry.ordered() {
		if err := writeObject(ctx, t, o, s); err != nil {
			return fmt.Errorf("export %s %s: %w", o.Kind, o.Digest, err)
		}
	}
	return t.Close()
}

type file struct {
	name string
	data []byte
}

// ordered are the objects as they lie in a file: blobs before trees.
func (e *Entry) ordered() []Object {
	out := slices.Clone(e.Objects)
	slices.SortStableFunc(out, func(a, b Object) int { return strings.Compare(string(a.Kind), string(b.Kind)) })
	return out
}

// name is where an object lies in a file.
func (o Object) name() string {
	if o.Kind == store.Tree {
		return "trees/" + o.Digest.Hex() + ".nar"
	}
	return "blobs/" + o.Digest.Hex()
}

// header is the only one that a file of this name and size has.
func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
}

// headerFor falls back to PAX for what USTAR cannot say: more than 8 GiB.
func headerFor(name string, size int64) *tar.Header {
	h := header(name, size)
	if size >= 1<<33 {
		h.Format = tar.FormatPAX
	}
	return h
}

func writeFile(t *tar.Writer, name string, data []byte) error {
	if err := t.WriteHeader(headerFor(name, int64(len(data)))); err != nil {
		return err
	}
	_, err := t.Write(data)
	return err
}

func writeObject(ctx context.Context, t *tar.Writer, o Object, s *store.Store) error {
	if o.Kind == store.Blob {
		return writeBlob(t, o, s)
	}
	path, ok := s.TreePath(o.Digest)
	if !ok {
		return &store.NotFoundError{Kind: o.Kind, Digest: o.Digest}
	}
	sum, size, err := nar.Hash(ctx, path, nar.Options{})
	if err != nil {
		return err
	}
	if sum != o.Digest {
		return &store.MismatchError{Kind: o.Kind, Want: o.Digest, Got: sum}
	}
	if err := t.WriteHeader(headerFor(o.name(), size)); err != nil {
		return err
	}
	return nar.Dump(ctx, t, path, nar.Options{})
}

func writeBlob(t *tar.Writer, o Object, s *store.Store) error {
	f, err := s.OpenBlob(o.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(headerFor(o.name(), info.Size())); err != nil {
		return err
	}
	var sum digest.Writer
	if _, err := io.Copy(io.MultiWriter(t, &sum), f); err != nil {
		return err
	}
	if got := sum.Sum(); got != o.Digest {
		return &store.MismatchError{Kind: o.Kind, Want: o.Digest, Got: got}
	}
	return nil
}

// ImportOptions bound an import.
type ImportOptions struct {
	// Entry is what the ledger says of the entry: its SHA-256. With it, no byte of a file can be another. Zero: what no signature covers is
	// believed: which objects are kept, and how large outputs are.
	Entry     digest.SHA256
	MaxObject int64  // bytes of each object; zero: 16 GiB
	Root      string // name of the root of the store that keeps what was imported; empty: "archive" and the job's id
}

// Import reads what Export has written, whoever sends it: every file is where it must be, and what it must be, before it counts. Nothing is
// trusted by it: that the node which signed the statements is one to believe is for the caller to decide. What was stored before an error is for garbage collection.
func Import(ctx context.Context, r io.Reader, s *store.Store, o ImportOptions) (*Bundle, error) {
	lease, err := s.Lease(ctx)
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	var roots []digest.SHA256
	b, err := receive(ctx, r, o, func(x Object, body io.Reader) error {
		roots = append(roots, x.Digest)
		if x.Kind == store.Tree {
			_, err := s.AddTree(ctx, body, x.Digest)
			return err
		}
		_, _, err := s.AddBlob(ctx, body, x.Digest)
		return err
	})
	if err != nil {
		return nil, err
	}
	if o.Root == "" {
		o.Root = "archive " + b.Entry.Job.Hex()
	}
	return b, s.AddRoot(o.Root, roots...)
}

// Check is Import that keeps nothing: it accepts the same files, and needs no store.
func Check(ctx context.Context, r io.Reader, o ImportOptions) (*Bundle, error) {
	return receive(ctx, r, o, func(x Object, body io.Reader) error {
		if x.Kind != store.Tree {
			return nil
		}
		for from := nar.NewReader(body, nar.Limits{}); ; {
			if _, err := from.Next(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
}

// receive reads a file, and hands each object that it has to keep, which may leave some of it unread. What it keeps counts only
// if there is no error.
func receive(ctx context.Context, r io.Reader, o ImportOptions, keep func(x Object, body io.Reader) error) (*Bundle, error) {
	if o.MaxObject == 0 {
		o.MaxObject = 16 << 30
	}
	in := newReader(ctx, r)
	data, err := in.file("entry.json", MaxEntry)
	if err != nil {
		return nil, err
	}
	if got := digest.Of(data); !o.Entry.IsZero() && got != o.Entry {
		return nil, fmt.Errorf("read archive: its entry is %s, not %s", got, o.Entry)
	}
	b := &Bundle{Statements: map[digest.SHA256][]byte{}}
	if b.Entry, err = Decode(data); err != nil {
		return nil, err
	}
	if b.Envelope, err = in.file("envelope.json", dsse.MaxEnvelope); err != nil {
		return nil, err
	}
	for _, id := range b.Entry.statementIDs() {
		if b.Statements[id], err = in.file("statements/"+id.Hex(), MaxStatement); err != nil {
			return nil, err
		}
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	for _, x := range b.Entry.ordered() {
		if err := in.object(x, o.MaxObject, keep); err != nil {
			return nil, err
		}
	}
	return b, in.end()
}

// reader reads a file, one member after the other, and writes it anew on the way, into a hash: a file that is not byte for byte what Export
// writes has another.
type reader struct {
	ctx    context.Context
	raw    io.Reader
	tar    *tar.Reader
	was    digest.Writer // what was read
	writer *tar.Writer
	should digest.Writer // what Export would have written
}

func newReader(ctx context.Context, r io.Reader) *reader {
	in := &reader{ctx: ctx}
	in.raw = io.TeeReader(r, &in.was)
	in.tar, in.writer = tar.NewReader(in.raw), tar.NewWriter(&in.should)
	return in
}

// next wants the next member to be name.
func (in *reader) next(name string, most int64) (int64, error) {
	if err := in.ctx.Err(); err != nil {
		return 0, err
	}
	h, err := in.tar.Next()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, fmt.Errorf("read archive: %s: %w", name, err)
	}
	if h.Name != name || h.Typeflag != tar.TypeReg {
		return 0, fmt.Errorf("read archive: there is %q where %s must be", h.Name, name)
	}
	if h.Size > most {
		return 0, fmt.Errorf("read archive: %s has %d bytes, over the limit of %d", name, h.Size, most)
	}
	return h.Size, in.writer.WriteHeader(headerFor(name, h.Size))
}

// body reads what next has found.
func (in *reader) body(size int64) io.Reader {
	return io.TeeReader(io.LimitReader(in.tar, size), in.writer)
}

// file reads a small member.
func (in *reader) file(name string, most int64) ([]byte, error) {
	size, err := in.next(name, most)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(in.body(size))
	if err == nil && int64(len(data)) != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read archive: %s: %w", name, err)
	}
	return data, nil
}

// object reads a large member, which keep gets.
func (in *reader) object(o Object, most int64, keep func(x Object, body io.Reader) error) error {
	size, err := in.next(o.name(), most)
	if err != nil {
		return err
	}
	var sum digest.Writer
	body := io.TeeReader(in.body(size), &sum)
	if err = keep(o, body); err == nil { // what the store had already was not read
		_, err = io.Copy(io.Discard, body)
	}
	if got := sum.Sum(); err == nil && got != o.Digest {
		err = &store.MismatchError{Kind: o.Kind, Want: o.Digest, Got: got}
	}
	if err != nil {
		return fmt.Errorf("read archive: %s: %w", o.name(), err)
	}
	return nil
}

// end wants nothing to follow, and everything to have been as Export writes it.
func (in *reader) end() error {
	if h, err := in.tar.Next(); err == nil {
		return fmt.Errorf("read archive: %q is one too many", h.Name)
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read archive: %w", err)
	}
	if n, err := io.CopyN(io.Discard, in.raw, 1); n > 0 || !errors.Is(err, io.EOF) {
		return errors.New("read archive: something follows its end")
	}
	if err := in.writer.Close(); err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	if in.was.Sum() != in.should.Sum() {
		return errors.New("read archive: it is not in the form in which archives are written")
	}
	return nil
}

// ReadFile reads the bundle of a file on disk.
func ReadFile(ctx context.Context, path string, s *store.Store, o ImportOptions) (*Bundle, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Import(ctx, f, s, o)
}

// Peek reads no more than the entry of a file. It is what the file says: nothing of it is checked before Import.
func Peek(ctx context.Context, r io.Reader) (*Entry, error) {
	data, err := newReader(ctx, r).file("entry.json", MaxEntry)
	if err != nil {
		return nil, err
	}
	return Decode(data)
}
