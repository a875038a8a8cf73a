// Package realisation reads and writes what Nix's binary caches say of outputs that are named by their content: which derivation gave which store path.
//
// There are two layouts. Until Nix 2.34 an entry is realisations/sha256:HEX!OUTPUT.doi, a flat object that repeats its id; HEX is the hash of the
// derivation modulo its fixed outputs, see drv.Graph.RealisationID. From Nix 2.35 on it is build-trace-v2/NAME.drv/OUTPUT.doi, which holds only the
// value, or key and value (github.com/NixOS/nix, doc/manual/source/protocols/json/build-trace-entry.md).
//
// Parse refuses what it does not know, and an entry that is not what its name says. It believes nothing: signatures are returned, not verified.
package realisation

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/builder/binarycache"
)

// Dir is where caches have entries of the older layout.
const Dir = "realisations"

// traceDir is where they have those of the newer one.
const traceDir = "build-trace-v2"

const suffix = ".doi"

// Limits of an entry.
const (
	MaxSize       = 1 << 20 // bytes
	MaxSignatures = 256
)

// Realisation says that an output of a derivation came out at a store path.
type Realisation struct {
	Drv        string                  // base name of the derivation; empty in the older layout
	DrvHash    digest.SHA256           // of the derivation, in the older layout; zero in the newer
	Output     string                  // such as "out"
	Path       string                  // of the store object, absolute
	Signatures []binarycache.Signature // not verified
	Needs      map[string]string       // older layout: ids of the realisations that it was made with, and their base names
}

// SyntaxError says why an entry cannot be read.
type SyntaxError struct {
	Name   string
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("read realisation %.300q: %s", e.Name, e.Reason)
}

// entry is everything that an entry of either layout may hold.
type entry struct {
	ID                    string            `json:"id"`
	OutPath               string            `json:"outPath"`
	Signatures            []json.RawMessage `json:"signatures"`
	DependentRealisations map[string]string `json:"dependentRealisations"`
}

// Parse reads the entry that a cache has at name, which is relative to the cache. Errors are of type *SyntaxError.
func Parse(name string, data []byte) (*Realisation, error) {
	r, err := parse(name, data)
	if err != nil {
		return nil, &SyntaxError{name, err.Error()}
	}
	return r, nil
}

func parse(name string, data []byte) (*Realisation, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("it has %d bytes, over the limit of %d", len(data), MaxSize)
	}
	form, err := canonical.Transform(data) // no member twice, no invalid text
	if err != nil {
		return nil, err
	}
	r, err := ParseName(name)
	if err != nil {
		return nil, err
	}
	if r.Drv != "" {
		if form, err = r.value(form); err != nil {
			return nil, err
		}
	}
	var e entry
	if err := strict(form, &e); err != nil {
		return nil, err
	}
	if err := r.fill(e); err != nil {
		return nil, err
	}
	return r, nil
}

// ParseName reads the name of an entry, relative to the cache: of what is returned, only Drv or DrvHash, and Output are set.
func ParseName(name string) (*Realisation, error) {
	rest, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return nil, fmt.Errorf("the name does not end in .doi")
	}
	r := &Realisation{}
	if id, ok := strings.CutPrefix(rest, Dir+"/"); ok {
		sum, output, ok := strings.Cut(id, "!")
		var err error
		if hex, isSHA := strings.CutPrefix(sum, "sha256:"); !ok || !isSHA {
			return nil, fmt.Errorf("the name is not realisations/sha256:HEX!OUTPUT.doi")
		} else if r.DrvHash, err = digest.ParseHex(hex); err != nil {
			return nil, err
		}
		r.Output = output
	} else if key, ok := strings.CutPrefix(rest, traceDir+"/"); ok {
		if r.Drv, r.Output, ok = strings.Cut(key, "/"); !ok {
			return nil, fmt.Errorf("the name is not build-trace-v2/NAME.drv/OUTPUT.doi")
		}
		if _, err := storepath.Parse(storepath.Nix + "/" + r.Drv); err != nil || !strings.HasSuffix(r.Drv, ".drv") {
			return nil, fmt.Errorf("%q is no derivation", r.Drv)
		}
	} else {
		return nil, fmt.Errorf("the name is of no known layout")
	}
	if storepath.CheckName(r.Output) != nil {
		return nil, fmt.Errorf("%q is no name of an output", r.Output)
	}
	return r, nil
}

// value returns the value of an entry of the newer layout, after comparing the key, if it is there.
func (r *Realisation) value(form []byte) ([]byte, error) {
	var pair struct {
		Key *struct {
			DrvPath    string `json:"drvPath"`
			OutputName string `json:"outputName"`
		} `json:"key"`
		Value json.RawMessage `json:"value"`
	}
	if strict(form, &pair) != nil || pair.Key == nil {
		return form, nil // it must then be the value itself
	}
	if pair.Key.DrvPath != r.Drv || pair.Key.OutputName != r.Output {
		return nil, fmt.Errorf("it is of %q %q", pair.Key.DrvPath, pair.Key.OutputName)
	}
	return pair.Value, nil
}

func (r *Realisation) fill(e entry) error {
	if r.Drv == "" {
		if e.ID != r.ID() {
			return fmt.Errorf("its id is %q", e.ID)
		}
		r.Needs = e.DependentRealisations
	} else if e.ID != "" || e.DependentRealisations != nil {
		return fmt.Errorf("it has members of the older layout")
	}
	r.Path = storepath.Nix + "/" + e.OutPath
	if _, err := storepath.Parse(r.Path); err != nil {
		return err
	}
	for id, base := range r.Needs {
		if _, err := storepath.Parse(storepath.Nix + "/" + base); err != nil {
			return fmt.Errorf("dependent realisation %q: %w", id, err)
		}
	}
	if len(e.Signatures) > MaxSignatures {
		return fmt.Errorf("%d signatures, over the limit of %d", len(e.Signatures), MaxSignatures)
	}
	for _, raw := range e.Signatures {
		s, err := parseSignature(raw)
		if err != nil {
			return err
		}
		r.Signatures = append(r.Signatures, s)
	}
	return nil
}

// parseSignature reads "NAME:BASE64", or {"keyName","sig"}.
func parseSignature(raw []byte) (binarycache.Signature, error) {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		var parts struct {
			KeyName string `json:"keyName"`
			Sig     string `json:"sig"`
		}
		if err := strict(raw, &parts); err != nil {
			return binarycache.Signature{}, fmt.Errorf("signature: %w", err)
		}
		text = parts.KeyName + ":" + parts.Sig
	}
	return binarycache.ParseSignature(text)
}

// older is an entry of the older layout as Nix writes it: its members are in this order, which is that of the alphabet.
type older struct {
	Needs   map[string]string `json:"dependentRealisations"`
	ID      string            `json:"id"`
	OutPath string            `json:"outPath"`
}

// ID returns "sha256:HEX!OUTPUT", which names an entry of the older layout.
func (r *Realisation) ID() string { return "sha256:" + r.DrvHash.Hex() + "!" + r.Output }

// Name returns where a cache has an entry of the older layout.
func (r *Realisation) Name() string { return Dir + "/" + r.ID() + suffix }

// TraceName returns where a cache has an entry of the newer layout.
func (r *Realisation) TraceName() string { return traceDir + "/" + r.Drv + "/" + r.Output + suffix }

// older returns the entry without signatures.
func (r *Realisation) older() (older, error) {
	p, err := storepath.Parse(r.Path)
	if err == nil && (r.Drv != "" || r.DrvHash.IsZero() || storepath.CheckName(r.Output) != nil || p.Dir != storepath.Nix) {
		err = errors.New("it is none of the older layout")
	}
	if err != nil {
		return older{}, fmt.Errorf("write realisation %s: %w", r.ID(), err)
	}
	e := older{Needs: r.Needs, ID: r.ID(), OutPath: path.Base(r.Path)}
	if e.Needs == nil {
		e.Needs = map[string]string{}
	}
	return e, nil
}

// Fingerprint returns what is signed of an entry of the older layout: its JSON without the signatures (Nix: Realisation::fingerprint).
func (r *Realisation) Fingerprint() (string, error) {
	e, err := r.older()
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(e)
	return string(text), err
}

// Encode returns an entry of the older layout as Nix writes it.
func (r *Realisation) Encode() ([]byte, error) {
	e, err := r.older()
	if err != nil {
		return nil, err
	}
	signed := struct {
		older
		Signatures []string `json:"signatures"`
	}{e, []string{}}
	for _, s := range r.Signatures {
		signed.Signatures = append(signed.Signatures, s.String())
	}
	return json.Marshal(signed)
}

// strict decodes one JSON value without members that v does not have.
func strict(data []byte, v any) error {
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}
