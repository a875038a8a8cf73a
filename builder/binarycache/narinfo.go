package binarycache

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
)

// Limits of a narinfo.
const (
	MaxNarInfo    = 2 << 20 // bytes; one with 16,384 references has 1.2 MiB
	MaxReferences = 16384
	MaxFiles      = 16       // packings of one NAR that a narinfo offers
	MaxSignatures = 64       // fields Sig
	MaxNAR        = 64 << 30 // bytes of a NAR
	maxURL        = 2 << 10  // bytes
	maxText       = 1 << 10  // bytes of Deriver, System and CA
)

// NarInfo is what a cache says of a store path (Nix: binary cache protocol; guix/narinfo.scm), the file HASH.narinfo.
type NarInfo struct {
	StorePath  storepath.Path
	Files      []File // where the NAR lies, packed in several ways; never signed
	NarHash    digest.SHA256
	NarSize    int64
	References []string // names in the same store, HASH-NAME, sorted, each once; the path itself may be among them
	Deriver    string   // HASH-NAME.drv; empty: not known
	System     string   // of a Guix narinfo; empty: not said
	CA         string   // "text:…" or "fixed:…": the path is named by its content; empty: it is not
	Sigs       []Signature

	// Guix is the signature of a Guix narinfo, which is over its text; nil: it has none.
	Guix *GuixSignature
}

// File is one packing of a NAR.
type File struct {
	URL         string // relative to the cache, without ".."
	Compression Compression
	Hash        digest.SHA256 // of the packed bytes; zero: not said
	Size        int64         // of the packed bytes; 0: not said
}

// GuixSignature is the field Signature of a Guix narinfo, and what it is over.
type GuixSignature struct {
	Signed []byte // the text before the field, with its last newline
	Value  string // "1;HOST;BASE64 of an S-expression"
}

// FieldError says which field of a narinfo is wrong.
type FieldError struct {
	Field string
	Err   error
}

func (e *FieldError) Error() string { return fmt.Sprintf("read narinfo: %s: %v", e.Field, e.Err) }

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

// ParseNarInfo reads a narinfo. StorePath, URL, NarHash and NarSize must be there. Of one with a Guix signature nothing after it is read but
// URL, Compression, FileHash and FileSize.
func ParseNarInfo(data []byte) (*NarInfo, error) {
	n, err := parseFields(data)
	if err == nil && len(n.Files) == 0 {
		err = &FieldError{"URL", errors.New("it is not there")}
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

func parseFields(data []byte) (*NarInfo, error) {
	if len(data) > MaxNarInfo {
		return nil, fmt.Errorf("read narinfo: it has %d bytes, more than %d", len(data), MaxNarInfo)
	}
	p := narInfoParser{seen: map[string]bool{}, n: &NarInfo{}}
	offset := 0
	for line := range bytes.Lines(data) {
		key, value, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), ":")
		if !ok || key == "" {
			return nil, fmt.Errorf("read narinfo: line %.100q is not KEY: VALUE", line)
		}
		if value, ok = strings.CutPrefix(value, " "); !ok && value != "" { // "References:" may have nothing behind it
			return nil, fmt.Errorf("read narinfo: line %.100q is not KEY: VALUE", line)
		}
		if key == "Signature" && p.n.Guix == nil {
			p.n.Guix = &GuixSignature{Signed: slices.Clone(data[:offset]), Value: value}
		} else if err := p.field(key, value); err != nil {
			return nil, &FieldError{key, err}
		}
		offset += len(line)
	}
	return p.finish()
}

// narInfoParser reads fields in their order.
type narInfoParser struct {
	n    *NarInfo
	seen map[string]bool // fields that may be there once
}

var errTwice = errors.New("it is there twice")

func (p *narInfoParser) field(key, value string) error {
	switch key {
	case "URL", "Compression", "FileHash", "FileSize":
		return p.file(key, value)
	case "Sig":
		return p.sig(value)
	case "StorePath", "NarHash", "NarSize", "References", "Deriver", "System", "CA", "Signature":
	default:
		return nil
	}
	if p.n.Guix != nil {
		return errors.New("it stands behind the signature, which does not cover it")
	}
	if p.seen[key] {
		return errTwice
	}
	p.seen[key] = true
	return p.once(key, value)
}

func (p *narInfoParser) once(key, value string) (err error) {
	n := p.n
	switch key {
	case "StorePath":
		n.StorePath, err = storepath.Parse(value)
	case "NarHash":
		n.NarHash, err = digest.Parse(value)
	case "NarSize":
		n.NarSize, err = parseSize(value, MaxNAR)
	case "References":
		if value != "" {
			n.References, err = parseReferences(value)
		}
	case "Deriver":
		if value != "unknown-deriver" {
			n.Deriver, err = parseText(value)
		}
	case "System":
		n.System, err = parseText(value)
	case "CA":
		n.CA, err = parseText(value)
	}
	return err
}

func (p *narInfoParser) sig(value string) error {
	if len(p.n.Sigs) == MaxSignatures {
		return fmt.Errorf("there are more than %d", MaxSignatures)
	}
	s, err := ParseSignature(value)
	p.n.Sigs = append(p.n.Sigs, s)
	return err
}

// file reads a field of the packing whose URL came last.
func (p *narInfoParser) file(key, value string) (err error) {
	if key == "URL" {
		if len(p.n.Files) == MaxFiles {
			return fmt.Errorf("there are more than %d", MaxFiles)
		}
		p.n.Files = append(p.n.Files, File{URL: value})
		return checkURL(value)
	}
	if len(p.n.Files) == 0 {
		return errors.New("it stands before the URL")
	}
	f := &p.n.Files[len(p.n.Files)-1]
	switch key {
	case "Compression":
		if f.Compression != "" {
			return errTwice
		}
		f.Compression = Compression(value)
		if value == "" || len(value) > maxText {
			err = errors.New("it has no name of a compression")
		}
	case "FileHash":
		if !f.Hash.IsZero() {
			return errTwice
		}
		f.Hash, err = digest.Parse(value)
	case "FileSize":
		if f.Size != 0 {
			return errTwice
		}
		f.Size, err = parseSize(value, 2*MaxNAR)
	}
	return err
}

func (p *narInfoParser) finish() (*NarInfo, error) {
	n := p.n
	for _, key := range []string{"StorePath", "NarHash", "NarSize"} {
		if !p.seen[key] {
			return nil, &FieldError{key, errors.New("it is not there")}
		}
	}
	if n.NarSize == 0 {
		return nil, &FieldError{"NarSize", errors.New("no NAR has 0 bytes")}
	}
	for i := range n.Files {
		if n.Files[i].Compression == "" {
			n.Files[i].Compression = Bzip2 // Nix: what it was before there was the field
		}
	}
	return n, nil
}

func parseSize(text string, limit int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%.50q is no number of bytes", text)
	}
	if n > limit {
		return 0, fmt.Errorf("%d bytes are over the limit of %d", n, limit)
	}
	return n, nil
}

func parseText(text string) (string, error) {
	if text == "" {
		return "", nil // Guix writes "Deriver:" of what it does not know
	}
	if len(text) > maxText || strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0 {
		return "", fmt.Errorf("%.100q is over %d bytes, or not printable", text, maxText)
	}
	return text, nil
}

func parseReferences(text string) ([]string, error) {
	if strings.Count(text, " ") >= MaxReferences {
		return nil, fmt.Errorf("there are more than %d", MaxReferences)
	}
	refs := strings.Fields(text)
	for _, ref := range refs {
		if _, err := parseBase(storepath.Nix, ref); err != nil {
			return nil, err
		}
	}
	slices.Sort(refs)
	if len(slices.Compact(slices.Clone(refs))) != len(refs) {
		return nil, errTwice
	}
	return refs, nil
}

// checkURL accepts only what lies below the cache: a server must not send its clients elsewhere.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || len(text) > maxURL || strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0 {
		return fmt.Errorf("%.100q is no URL", text)
	}
	if u.IsAbs() || u.Host != "" || u.User != nil || u.Fragment != "" || u.Path == "" || u.Path[0] == '/' || path.Clean(u.Path) != u.Path ||
		u.Path == ".." || strings.HasPrefix(u.Path, "../") || strings.Contains(u.Path, `\`) {
		return fmt.Errorf("%.100q does not lie below the cache", text)
	}
	return nil
}

// Fingerprint returns what signatures of Nix are over.
func (n *NarInfo) Fingerprint() Fingerprint {
	f := Fingerprint{Path: n.StorePath, NAR: n.NarHash, Size: n.NarSize}
	for _, ref := range n.References {
		f.References = append(f.References, n.StorePath.Dir+"/"+ref)
	}
	return f
}

// Encode writes a narinfo in Nix's order of fields. That of a Guix narinfo cannot be written: its text is what is signed.
func (n *NarInfo) Encode() ([]byte, error) {
	if n.Guix != nil {
		return nil, errors.New("write narinfo: a signature by Guix is over another text")
	}
	var b bytes.Buffer
	field := func(key, value string) { fmt.Fprintf(&b, "%s: %s\n", key, value) }
	field("StorePath", n.StorePath.String())
	for _, f := range n.Files {
		field("URL", f.URL)
		field("Compression", string(f.Compression))
		if !f.Hash.IsZero() {
			field("FileHash", f.Hash.Nix32())
		}
		if f.Size > 0 {
			field("FileSize", strconv.FormatInt(f.Size, 10))
		}
	}
	field("NarHash", n.NarHash.Nix32())
	field("NarSize", strconv.FormatInt(n.NarSize, 10))
	field("References", strings.Join(n.References, " "))
	for _, optional := range [][2]string{{"Deriver", n.Deriver}, {"System", n.System}} {
		if optional[1] != "" {
			field(optional[0], optional[1])
		}
	}
	for _, s := range n.Sigs {
		field("Sig", s.String())
	}
	if n.CA != "" {
		field("CA", n.CA)
	}
	if _, err := ParseNarInfo(b.Bytes()); err != nil {
		return nil, fmt.Errorf("write narinfo: %w", err)
	}
	return b.Bytes(), nil
}

// ReadSigned returns the path and NAR hash of the text that a Guix signature is over, which has no field URL since Guix 1.2.
func ReadSigned(text []byte) (storepath.Path, digest.SHA256, error) {
	n, err := parseFields(text)
	if err != nil {
		return storepath.Path{}, digest.SHA256{}, err
	}
	return n.StorePath, n.NarHash, nil
}
