package attest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"

	"github.com/klauspost/compress/zstd"
)

// MaxSource bounds one carried source, in bytes of content. What is larger is fetched from where its reference says.
const MaxSource = 256 << 20

// Source is a source that a receipt carries, so that a rebuilder needs nothing else: a tree as NAR, or a file.
// It is data, not a statement: its digest says what it is, and Open checks that.
type Source struct {
	MediaType string        // MediaNARZstd or MediaFileZstd
	Digest    digest.SHA256 // of the content before compression
	Name      string        // for people; may be empty
	packed    []byte        // zstd, one frame with its content size (RFC 8878 section 3.1.1.1.4)
}

// sourceLine is a Source as a line of a receipt. Nothing in it is signed.
type sourceLine struct {
	MediaType string            `json:"mediaType"`
	Digest    map[string]string `json:"digest"`
	Name      string            `json:"name,omitempty"`
	Content   []byte            `json:"content"`
}

func isSourceType(mediaType string) bool {
	return mediaType == MediaNARZstd || mediaType == MediaFileZstd
}

// NewSource compresses content for carrying. The compressed bytes are no identity and may change with the library.
func NewSource(mediaType, name string, content []byte) (Source, error) {
	if !isSourceType(mediaType) {
		return Source{}, fmt.Errorf("carry source %q: media type %q is neither %s nor %s", name, mediaType, MediaNARZstd, MediaFileZstd)
	}
	if len(content) > MaxSource {
		return Source{}, fmt.Errorf("carry source %q: %d bytes are over the limit of %d", name, len(content), MaxSource)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(true), zstd.WithZeroFrames(true))
	if err != nil {
		return Source{}, fmt.Errorf("carry source %q: %w", name, err)
	}
	defer enc.Close()
	return Source{MediaType: mediaType, Digest: digest.Of(content), Name: name, packed: enc.EncodeAll(content, nil)}, nil
}

// Size returns the number of bytes that Open will return, as the compressed frame declares it.
func (s Source) Size() (int64, error) {
	var head zstd.Header
	if err := head.Decode(s.packed); err != nil {
		return 0, fmt.Errorf("open source %s: %w", s.Digest, err)
	}
	switch {
	case head.Skippable || !head.HasFCS:
		return 0, fmt.Errorf("open source %s: the compressed frame does not declare its size", s.Digest)
	case head.FrameContentSize > MaxSource:
		return 0, fmt.Errorf("open source %s: %d bytes are over the limit of %d", s.Digest, head.FrameContentSize, MaxSource)
	}
	return int64(head.FrameContentSize), nil
}

// Open decompresses the content and checks that it has the digest. Memory is bounded by the declared size, and that by
// MaxSource.
func (s Source) Open() ([]byte, error) {
	size, err := s.Size()
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(size, zstd.MinWindowSize))),
		zstd.WithDecoderMaxWindow(MaxSource))
	if err != nil {
		return nil, fmt.Errorf("open source %s: %w", s.Digest, err)
	}
	defer dec.Close()
	content, err := dec.DecodeAll(s.packed, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("open source %s: %w", s.Digest, err)
	}
	if got := digest.Of(content); got != s.Digest {
		return nil, fmt.Errorf("open source %s: the content has the hash %s", s.Digest, got)
	}
	return content, nil
}

// Carried opens every carried source and returns the contents by digest. One that is not what it says is an error.
func (r *Receipt) Carried() (map[digest.SHA256][]byte, error) {
	out := make(map[digest.SHA256][]byte, len(r.Sources))
	total := int64(0)
	for _, s := range r.Sources {
		size, err := s.Size()
		if err != nil {
			return nil, err
		}
		if total += size; total > 2*MaxSource {
			return nil, fmt.Errorf("open sources: together they are over the limit of %d bytes", 2*MaxSource)
		}
		content, err := s.Open()
		if err != nil {
			return nil, err
		}
		out[s.Digest] = content
	}
	return out, nil
}

// parseSource reads a line in one pass: it may be many megabytes.
func parseSource(line []byte) (Source, error) {
	s, err := readSource(line)
	if err != nil {
		return Source{}, fmt.Errorf("read source: %w", err)
	}
	return s, nil
}

func readSource(line []byte) (Source, error) {
	r, err := canonical.NewReader(line)
	if err != nil {
		return Source{}, err
	}
	var s Source
	sums := map[string]string{}
	text := func(into *string) error {
		value, err := r.Text()
		*into = string(value)
		return err
	}
	err = r.Object(func(name string) error {
		switch name {
		case "mediaType":
			return text(&s.MediaType)
		case "name":
			return text(&s.Name)
		case "content":
			value, err := r.Text()
			if err != nil {
				return err
			}
			s.packed, err = base64.StdEncoding.Strict().AppendDecode(nil, value)
			return err
		case "digest":
			return r.Object(func(alg string) error {
				value, err := r.Text()
				sums[alg] = string(value)
				return err
			})
		case "payloadType":
			return errors.New("it is an envelope")
		}
		return r.Skip()
	})
	if err == nil {
		err = r.End()
	}
	if err != nil {
		return Source{}, err
	}
	sum, ok := ResourceDescriptor{Digest: sums}.SHA256()
	if !ok || !isSourceType(s.MediaType) || len(s.packed) == 0 {
		return Source{}, fmt.Errorf("it has no sha256, no content or the media type %q", s.MediaType)
	}
	s.Digest = sum
	return s, nil
}

func (s Source) encode() []byte {
	line, err := json.Marshal(sourceLine{
		MediaType: s.MediaType, Digest: map[string]string{"sha256": s.Digest.Hex()}, Name: s.Name, Content: s.packed,
	})
	if err != nil { // a struct of strings and bytes always has a form
		panic(err)
	}
	return line
}

func compareSources(a, b Source) int { return bytes.Compare(a.Digest[:], b.Digest[:]) }
