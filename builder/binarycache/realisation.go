package binarycache

import (
	"fmt"
	"strings"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
)

// Realisation says which path an output of a content-addressed derivation came to be (Nix up to 2.34: realisation.cc), the file
// realisations/ID.doi.
type Realisation struct {
	ID      DrvOutput
	OutPath string // HASH-NAME
	// Dependent are the realisations of what it refers to: outputs to HASH-NAME. Nix 2.8 leaves it empty for most.
	Dependent map[DrvOutput]string
	Sigs      []Signature // over Fingerprint
}

// DrvOutput names an output of a derivation, whose own hash leaves out how its inputs were named.
type DrvOutput struct {
	Drv    digest.SHA256
	Output string // such as "out"
}

// String returns "sha256:HEX!OUTPUT".
func (o DrvOutput) String() string { return o.Drv.String() + "!" + o.Output }

// ParseDrvOutput reads "sha256:HEX!OUTPUT".
func ParseDrvOutput(text string) (DrvOutput, error) {
	drv, output, ok := strings.Cut(text, "!")
	sum, err := digest.Parse(drv)
	if !ok || err != nil || sum.String() != drv || output == "" || len(output) > maxName || strings.IndexFunc(output, notNameChar) >= 0 {
		return DrvOutput{}, fmt.Errorf("%.300q is not sha256:HEX!OUTPUT", text)
	}
	return DrvOutput{sum, output}, nil
}

// MaxRealisation bounds a realisation, in bytes.
const MaxRealisation = 1 << 20

type realisation struct {
	Dependent  map[string]string `json:"dependentRealisations"`
	ID         string            `json:"id"`
	OutPath    string            `json:"outPath"`
	Signatures []string          `json:"signatures,omitzero"`
}

// ParseRealisation reads a realisation.
func ParseRealisation(data []byte) (*Realisation, error) {
	r, err := parseRealisation(data)
	if err != nil {
		return nil, fmt.Errorf("read realisation: %w", err)
	}
	return r, nil
}

func parseRealisation(data []byte) (*Realisation, error) {
	var in realisation
	if len(data) > MaxRealisation {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(data), MaxRealisation)
	}
	if err := decodeJSON(data, &in); err != nil {
		return nil, err
	}
	if len(in.Signatures) > MaxSignatures {
		return nil, fmt.Errorf("it has over %d signatures", MaxSignatures)
	}
	r := &Realisation{OutPath: in.OutPath, Dependent: map[DrvOutput]string{}}
	var err error
	if r.ID, err = ParseDrvOutput(in.ID); err != nil {
		return nil, err
	}
	if _, err := ParseBase("", in.OutPath); err != nil {
		return nil, err
	}
	for id, out := range in.Dependent {
		o, err := ParseDrvOutput(id)
		if err != nil {
			return nil, err
		}
		if _, err := ParseBase("", out); err != nil {
			return nil, err
		}
		r.Dependent[o] = out
	}
	for _, text := range in.Signatures {
		s, err := ParseSignature(text)
		if err != nil {
			return nil, err
		}
		r.Sigs = append(r.Sigs, s)
	}
	return r, nil
}

// Encode writes the realisation.
func (r *Realisation) Encode() ([]byte, error) {
	out := r.unsigned()
	out.Signatures = []string{}
	for _, s := range r.Sigs {
		out.Signatures = append(out.Signatures, s.String())
	}
	data, err := canonical.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("write realisation: %w", err)
	}
	if _, err := parseRealisation(data); err != nil {
		return nil, fmt.Errorf("write realisation: %w", err)
	}
	return data, nil
}

// Fingerprint is what signatures are over: the realisation as JSON without them, its members sorted.
func (r *Realisation) Fingerprint() (string, error) {
	data, err := canonical.Marshal(r.unsigned())
	if err != nil {
		return "", fmt.Errorf("fingerprint of a realisation: %w", err)
	}
	return string(data), nil
}

func (r *Realisation) unsigned() realisation {
	out := realisation{Dependent: map[string]string{}, ID: r.ID.String(), OutPath: r.OutPath}
	for o, path := range r.Dependent {
		out.Dependent[o.String()] = path
	}
	return out
}
