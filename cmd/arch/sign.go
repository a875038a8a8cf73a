package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/builder"
)

func newSignCommand(a *app) *cobra.Command {
	var o signFlags
	var out string
	c := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a document",
		Long: `Sign adds your signature to a document: to a YAML file in place, its comments and layout untouched, or to a DSSE
envelope. What is signed is the document's canonical form (RFC 8785) as DSSE; the signature in the YAML and in the envelope
is the same.`,
		Example: "  arch sign policy.yaml\n  arch sign --key release.key --out signed.yaml job.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			signer, err := a.signer(c.Context(), o.key, false)
			if err != nil {
				return err
			}
			return runSign(c.Context(), a, signer, args[0], out)
		},
	}
	o.add(c)
	c.Flags().StringVarP(&out, "out", "o", "", "write here instead of in place; - for stdout")
	return c
}

func runSign(ctx context.Context, a *app, signer identity.Signer, path, out string) error {
	src, err := readFileLimit(path, dsse.MaxEnvelope)
	if err != nil {
		return err
	}
	signed, err := signDocument(ctx, signer, src)
	if err != nil {
		return manifest.InFile(err, path)
	}
	if out == "" {
		out = path
	}
	return a.writeOut(out, signed)
}

// signDocument returns src, a YAML document or an envelope, with a signature more.
func signDocument(ctx context.Context, signer identity.Signer, src []byte) ([]byte, error) {
	if isEnvelope(src) {
		env, doc, err := openEnvelope(src)
		if err != nil {
			return nil, err
		}
		if err := doc.Validate(); err != nil {
			return nil, err
		}
		if err := env.Add(ctx, signer); err != nil {
			return nil, err
		}
		return append(env.Marshal(), '\n'), nil
	}
	doc, err := manifest.ReadYAML(src)
	if err != nil {
		return nil, err
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
func isEnvelope(src []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(src), []byte("{")) }

// openEnvelope parses an envelope and the document within. Nothing is verified.
func openEnvelope(src []byte) (*dsse.Envelope, manifest.Document, error) {
	env, err := dsse.Parse(src)
	if err != nil {
		return nil, nil, err
	}
	doc, err := manifest.Payload(env)
	return env, doc, err
}

// writeOut writes data to a file in one step, or to stdout for "-".
func (a *app) writeOut(path string, data []byte) error {
	if path == "-" {
		_, err := a.out.Write(data)
		return err
	}
	if err := builder.WriteFile(path, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	a.note("wrote %s", path)
	return nil
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
			doc, err := readDocument(args[0])
			if err != nil {
				return err
			}
			env, err := manifest.Wrap(doc)
			if err != nil {
				return err
			}
			if out == "" {
				out = strings.TrimSuffix(args[0], filepath.Ext(args[0])) + ".dsse.json"
			}
			return a.writeOut(out, append(env.Marshal(), '\n'))
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "file to write (default: FILE with .dsse.json); - for stdout")
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
			src, err := readFileLimit(args[0], dsse.MaxEnvelope)
			if err != nil {
				return err
			}
			env, err := dsse.Parse(src)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			doc, err := manifest.Unwrap(env)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			text, err := manifest.WriteYAML(doc)
			if err != nil {
				return err
			}
			if out == "" {
				out = strings.TrimSuffix(strings.TrimSuffix(args[0], ".json"), ".dsse") + ".yaml"
				if _, err := os.Stat(out); err == nil {
					return hinted(fmt.Errorf("%s exists already", out), "name another file with --out, or - for stdout")
				}
			}
			return a.writeOut(out, text)
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "file to write (default: FILE with .yaml, if there is none); - for stdout")
	return c
}
