package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

func newSignCommand(a *app) *cobra.Command {
	var o signFlags
	var out string
	var dry bool
	c := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a document",
		Long: `Sign adds your signature to a document: to a YAML file in place, its comments and layout untouched, or to a DSSE
envelope. What is signed is the document's canonical form (RFC 8785) as DSSE; the signature in the YAML and in the envelope
is the same.`,
		Example: "  arch sign policy.yaml\n  arch sign --key release.key --out signed.yaml job.yaml\n  arch sign --dry-run policy.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if dry && out != "" {
				return hinted(usage("--dry-run writes nothing, so --out has no meaning"), "leave out one of them")
			}
			return runSign(c.Context(), a, o.key, args[0], out, dry)
		},
	}
	o.add(c)
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only show what would be signed, and by which key")
	c.Flags().StringVarP(&out, "out", "o", "", "write here instead of in place; - for stdout")
	return c
}

// documentResult is what --json shows of a document that was written.
type documentResult struct {
	File string        `json:"file"`
	Kind string        `json:"document"` // its kind
	Name string        `json:"name"`
	ID   digest.SHA256 `json:"id"` // what signatures cover
	By   string        `json:"by,omitempty"`
	Dry  bool          `json:"dryRun,omitempty"` // nothing was written
}

func (documentResult) kind() string { return "WrittenDocument" }

// written shows a document that was written to a file; of one that went to stdout there is nothing to add.
func (a *app) written(path string, doc manifest.Document, by string) error {
	if path == "-" {
		return nil
	}
	return a.describeWritten(documentResult{File: path, By: by}, doc)
}

// describeWritten shows res with what it tells of the document itself.
func (a *app) describeWritten(res documentResult, doc manifest.Document) error {
	id, err := manifest.ID(doc)
	if err != nil {
		return err
	}
	res.Kind, res.Name, res.ID = doc.DocumentKind(), doc.Head().Name, id
	return a.print(res, func(s *screen) {
		fmt.Fprintf(s, "%s: %s %s\n  id %s\n", res.File, res.Kind, res.Name, res.ID)
		switch {
		case res.Dry:
			fmt.Fprintf(s, "  would be signed by %s\n", res.By)
		case res.By != "":
			fmt.Fprintf(s, "  signed by %s\n", res.By)
		}
	})
}

func runSign(ctx context.Context, a *app, key, path, out string, dry bool) error {
	src, err := a.readFile(path, dsse.MaxEnvelope)
	if err != nil {
		return err
	}
	doc, err := parseDocument(src) // before anyone is asked for a passphrase
	if err != nil {
		return inFile(err, path)
	}
	signer, err := a.signer(ctx, key, false)
	if err != nil {
		return err
	}
	if dry {
		return a.describeWritten(documentResult{File: path, By: signer.Public().String(), Dry: true}, doc)
	}
	signed, err := signDocument(ctx, signer, src, doc)
	if err != nil {
		return inFile(err, path)
	}
	if out == "" {
		out = path
	}
	if err := a.writeOut(out, signed); err != nil {
		return err
	}
	return a.written(out, doc, signer.Public().String())
}

// parseDocument reads a valid document, YAML or an envelope. Nothing is verified.
func parseDocument(src []byte) (manifest.Document, error) {
	if !isEnvelope(src) {
		return manifest.ReadYAML(src)
	}
	_, doc, err := openEnvelope(src)
	if err == nil {
		err = doc.Validate()
	}
	return doc, err
}

// signDocument returns src, a YAML document or an envelope of doc, with a signature more.
func signDocument(ctx context.Context, signer identity.Signer, src []byte, doc manifest.Document) ([]byte, error) {
	if isEnvelope(src) {
		env, err := dsse.Parse(src)
		if err != nil {
			return nil, err
		}
		if err := env.Add(ctx, signer); err != nil {
			return nil, err
		}
		return append(env.Marshal(), '\n'), nil
	}
	form, err := manifest.Canonical(doc)
	if err != nil {
		return nil, err
	}
	env, err := dsse.Sign(ctx, manifest.PayloadType(doc.DocumentKind()), form, signer)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", doc.Head().Name, err)
	}
	sig, err := manifest.SignatureOf(env.Signatures[0])
	if err != nil {
		return nil, err
	}
	return manifest.InsertSignatures(src, []manifest.Signature{sig})
}

// isEnvelope tells a DSSE envelope from a YAML document.
//
// YAML may begin with a brace, too; no kind of document has a field called payload at its top.
func isEnvelope(src []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(src), []byte("{")) && bytes.Contains(src, []byte(`"payload"`))
}

// openEnvelope parses an envelope and the document within. Nothing is verified.
func openEnvelope(src []byte) (*dsse.Envelope, manifest.Document, error) {
	env, err := dsse.Parse(src)
	if err != nil {
		return nil, nil, err
	}
	doc, err := manifest.Payload(env)
	return env, doc, err
}

func newWrapCommand(a *app) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "wrap FILE",
		Short: "Turn a YAML document into the DSSE envelope that travels",
		Long: `Wrap writes the DSSE envelope of a YAML document: the canonical form as payload, and the signatures that the document
carries. Any DSSE tool can check it. unwrap goes back.`,
		Example: "  arch wrap policy.yaml                 # writes policy.dsse.json\n  arch wrap --out - job.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			doc, err := a.readDocument(args[0])
			if err != nil {
				return err
			}
			env, err := manifest.Wrap(doc)
			if err != nil {
				return err
			}
			if out == "" {
				out = strings.TrimSuffix(args[0], filepath.Ext(args[0])) + ".dsse.json"
				if err := newFile(out); err != nil {
					return err
				}
			}
			if err := a.writeOut(out, append(env.Marshal(), '\n')); err != nil {
				return err
			}
			return a.written(out, doc, "")
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "file to write (default: FILE with .dsse.json, if there is none); - for stdout")
	return c
}

func newUnwrapCommand(a *app) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:     "unwrap FILE",
		Short:   "Turn a DSSE envelope back into a YAML document that carries its signatures",
		Example: "  arch unwrap policy.dsse.json          # writes policy.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			src, err := a.readFile(args[0], dsse.MaxEnvelope)
			if err != nil {
				return err
			}
			env, err := dsse.Parse(src)
			if err != nil {
				return inFile(err, args[0])
			}
			doc, err := manifest.Unwrap(env)
			if err != nil {
				return inFile(err, args[0])
			}
			text, err := manifest.WriteYAML(doc)
			if err != nil {
				return err
			}
			if out == "" {
				out = strings.TrimSuffix(strings.TrimSuffix(args[0], ".json"), ".dsse") + ".yaml"
				if err := newFile(out); err != nil {
					return err
				}
			}
			if err := a.writeOut(out, text); err != nil {
				return err
			}
			return a.written(out, doc, "")
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "file to write (default: FILE with .yaml, if there is none); - for stdout")
	return c
}
