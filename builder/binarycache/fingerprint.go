package binarycache

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
)

// Fingerprint is what a signature of Nix says: this path has these bytes and refers to these paths.
type Fingerprint struct {
	Path       storepath.Path
	NAR        digest.SHA256
	Size       int64    // bytes of the NAR
	References []string // whole store paths of the same store, sorted, each once
}

// String returns "1;PATH;HASH;SIZE;REFERENCES", the bytes that are signed.
func (f Fingerprint) String() string {
	return fmt.Sprintf("1;%s;%s;%d;%s", f.Path, f.NAR.Nix32(), f.Size, strings.Join(f.References, ","))
}

// ParseFingerprint reads what String writes and nothing else.
func ParseFingerprint(text string) (Fingerprint, error) {
	f, err := parseFingerprint(text)
	if err == nil && f.String() != text {
		err = fmt.Errorf("it is not in the form that is signed")
	}
	if err != nil {
		return Fingerprint{}, fmt.Errorf("read fingerprint %.300q: %w", text, err)
	}
	return f, nil
}

func parseFingerprint(text string) (f Fingerprint, err error) {
	if len(text) > MaxNarInfo {
		return f, fmt.Errorf("it has %d bytes, more than %d", len(text), MaxNarInfo)
	}
	parts := strings.Split(text, ";")
	if len(parts) != 5 || parts[0] != "1" {
		return f, fmt.Errorf("it is not 1;PATH;HASH;SIZE;REFERENCES")
	}
	if f.Path, err = storepath.Parse(parts[1]); err != nil {
		return f, err
	}
	if f.NAR, err = digest.ParseNix32(parts[2]); err != nil {
		return f, err
	}
	if f.Size, err = strconv.ParseInt(parts[3], 10, 64); err != nil || f.Size <= 0 || f.Size > MaxNAR {
		return f, fmt.Errorf("%.50q is no number of bytes", parts[3])
	}
	if parts[4] == "" {
		return f, nil
	}
	if f.References = strings.Split(parts[4], ","); len(f.References) > MaxReferences {
		return f, fmt.Errorf("there are more than %d references", MaxReferences)
	}
	for i, ref := range f.References {
		if p, err := storepath.Parse(ref); err != nil || p.Dir != f.Path.Dir {
			return f, fmt.Errorf("%.250q is no path of the same store", ref)
		}
		if i > 0 && f.References[i-1] >= ref {
			return f, fmt.Errorf("its references are not sorted")
		}
	}
	f.References = slices.Clip(f.References)
	return f, nil
}
