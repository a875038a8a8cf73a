package closure

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"arch.network/attest/digest"
)

// splitPath takes a store path apart. ok is false if it is none.
func splitPath(p string) (store string, hash hashPart, name string, ok bool) {
	store, base := path.Split(p)
	store = strings.TrimSuffix(store, "/")
	if len(base) < hashLen+2 || base[hashLen] != '-' || len(base) > hashLen+1+maxNameOf || path.Clean(p) != p || !path.IsAbs(p) || store == "" {
		return "", hashPart{}, "", false
	}
	name = base[hashLen+1:]
	if nameAt([]byte(name)) != name || name[0] == '.' || !isHash([]byte(base[:hashLen])) {
		return "", hashPart{}, "", false
	}
	copy(hash[:], base)
	return store, hash, name, true
}

// selfCertified reports whether the name of a store path is a hash of its own content: Nix's store-path specification. refs are all references;
// flat is the hash of its bytes if it is a file that is not executable, zero otherwise.
func selfCertified(p string, nar, flat digest.SHA256, refs []string) bool {
	store, hash, name, ok := splitPath(p)
	if !ok || slices.Contains(refs, p) { // with references to itself, the hash is of something else
		return false
	}
	list := slices.Sorted(slices.Values(refs))
	kinds := []string{typeOf("source", list) + ":sha256:" + nar.Hex()}
	if !flat.IsZero() {
		kinds = append(kinds, typeOf("text", list)+":sha256:"+flat.Hex())
		if len(refs) == 0 {
			inner := sha256.Sum256([]byte("fixed:out:sha256:" + flat.Hex() + ":"))
			kinds = append(kinds, "output:out:sha256:"+hex.EncodeToString(inner[:]))
		}
	}
	for _, kind := range kinds {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s:%s:%s", kind, store, name))
		if compress(sum) == hash {
			return true
		}
	}
	return false
}

// typeOf joins the type of a store path with its references.
func typeOf(kind string, refs []string) string {
	return strings.Join(append([]string{kind}, refs...), ":")
}

// compress folds a hash to 160 bits and spells it in Nix's base 32, which begins with the last bits.
func compress(sum [sha256.Size]byte) hashPart {
	var short [20]byte
	for i, b := range sum {
		short[i%len(short)] ^= b
	}
	var part hashPart
	for n := range part {
		bit := (len(part) - 1 - n) * 5
		c := uint16(short[bit/8])
		if bit/8+1 < len(short) {
			c |= uint16(short[bit/8+1]) << 8
		}
		part[n] = alphabet[c>>(bit%8)&0x1f]
	}
	return part
}
