package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"arch.network/attest"
	"arch.network/builder/binarycache"
	"arch.network/builder/binarycache/cacheclient"
	"arch.network/builder/binarycache/receiptdir"
	"arch.network/builder/vouch"
)

const verifySigsHelp = `Verify-sigs decides whether a store path may be used, by who signed it: the program that NixOS/nix#14451 proposes for the setting
trusted-signatures-command. SIGNATURES are those of a narinfo, "NAME:BASE64" separated by white space; FINGERPRINT is what they are over,
"1;PATH;HASH;SIZE;REFERENCES".

Operators are counted, not signatures: see arch challenge --help for --keys. Receipts by builders (claims and provenances, as arch receipts
publish puts them beside a cache) count as their signers' word; --receipts names directories and URLs of caches that have them. A directory
that is not there has none; a cache that cannot be reached is an error, since it may have an objection.

EXIT STATUS: 0 enough operators vouch for it; 1 error; 2 usage; 3 too few do; 4 a signature of a known key is wrong; 5 an operator vouches for
another content.`

type verifySigsOptions struct {
	vouchFlags
	receipts  []string
	negatives bool
}

func newVerifySigsCommand(a *app) *cobra.Command {
	var o verifySigsOptions
	c := &cobra.Command{
		Use:   "verify-sigs SIGNATURES FINGERPRINT",
		Short: "Decide whether enough operators vouch for a store path, as Nix asks",
		Long:  verifySigsHelp,
		Example: `  arch verify-sigs --keys operators "$SIGNATURES" "$FINGERPRINT"
  arch verify-sigs -k 2 --trust trust.yaml --receipts https://cache.example.org "$SIGNATURES" "$FINGERPRINT"`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if o.keys == "" && o.trust == "" {
				return hinted(usage("whose word counts? neither --keys nor --trust is given"), "add --keys FILE; arch challenge --help shows what is in it")
			}
			return runVerifySigs(c.Context(), a, o, args[0], args[1])
		},
	}
	o.vouchFlags.add(c)
	c.Flags().StringArrayVar(&o.receipts, "receipts", nil, "directory or URL of a cache with receipts beside it (repeatable)")
	c.Flags().BoolVar(&o.negatives, "allow-negative", false, "accept it although an operator vouches for another content")
	return c
}

// verifySigsResult is what the command found.
type verifySigsResult struct {
	OK        bool         `json:"ok"`
	Path      string       `json:"path"`
	NAR       string       `json:"nar"` // SRI
	Operators []string     `json:"operators"`
	Needed    int          `json:"needed"`
	Votes     []vouch.Vote `json:"votes"`
	Against   []vouch.Vote `json:"against"`
	Wrong     []string     `json:"wrongSignatures,omitempty"`
}

func (verifySigsResult) kind() string { return "SignatureVerdict" }

func runVerifySigs(ctx context.Context, a *app, o verifySigsOptions, signatures, fingerprint string) error {
	f, err := binarycache.ParseFingerprint(fingerprint)
	if err != nil {
		return withStatus(exitUsage, err)
	}
	e := vouch.Evidence{Fingerprint: f, Receipts: &attest.Receipt{}}
	for text := range strings.FieldsSeq(signatures) {
		s, err := binarycache.ParseSignature(text)
		if err != nil {
			return withStatus(exitUsage, err)
		}
		if len(e.Sigs) == binarycache.MaxSignatures {
			return usage("there are more than %d signatures", binarycache.MaxSignatures)
		}
		e.Sigs = append(e.Sigs, s)
	}
	r, err := o.open(a)
	if err != nil {
		return err
	}
	for _, from := range o.receipts {
		more, err := readReceiptsOf(ctx, from, f)
		if err != nil {
			return err
		}
		e.Receipts.Merge(more)
	}
	v := r.keys.Judge(e, time.Now())
	res := verifySigsResult{
		Path: f.Path.String(), NAR: f.NAR.SRI(), Operators: append([]string{}, v.Operators()...), Needed: r.quorum,
		Votes: append([]vouch.Vote{}, v.Votes...), Against: append([]vouch.Vote{}, v.Against...), Wrong: v.Wrong,
	}
	err = o.judge(res)
	res.OK = err == nil
	if printErr := a.print(res, res.text); printErr != nil {
		return printErr
	}
	return err
}

// judge says what the exit status says.
func (o verifySigsOptions) judge(res verifySigsResult) error {
	switch {
	case len(res.Against) > 0 && !o.negatives:
		return hinted(withStatus(exitNotReproducible, fmt.Errorf("%s: %s vouches for another content", res.Path, res.Against[0].Operator)),
			"arch challenge shows how they differ; --allow-negative accepts it nevertheless")
	case len(res.Wrong) > 0:
		return withStatus(exitVerification, fmt.Errorf("%s: %s: wrong", res.Path, strings.Join(res.Wrong, ", ")))
	case len(res.Operators) < res.Needed:
		return hinted(withStatus(exitDenied, fmt.Errorf("%s: %d of the %d operators that are needed vouch for it", res.Path, len(res.Operators), res.Needed)),
			"--receipts names where receipts of other builders lie; -k says how many are needed")
	}
	return nil
}

func (res verifySigsResult) text(s *screen) {
	for _, v := range res.Votes {
		fmt.Fprintf(s, "FOR     %s by %s (%s)\n", v.Operator, v.By, v.How)
	}
	for _, v := range res.Against {
		fmt.Fprintf(s, "AGAINST %s by %s (%s): %s\n", v.Operator, v.By, v.How, v.NAR.SRI())
	}
	for _, w := range res.Wrong {
		fmt.Fprintf(s, "WRONG   %s\n", w)
	}
	fmt.Fprintf(s, "%s: %d of %d operators\n", res.Path, len(res.Operators), res.Needed)
}

// readReceiptsOf reads the receipts on a path from a directory or a cache.
func readReceiptsOf(ctx context.Context, from string, f binarycache.Fingerprint) (*attest.Receipt, error) {
	if u, err := url.Parse(from); err != nil || u.Scheme == "" {
		return receiptdir.Read(from, f.Path, f.NAR)
	}
	cache, err := cacheclient.Open(from)
	if err != nil {
		return nil, withStatus(exitUsage, err)
	}
	all, err := cache.Receipts(ctx, f.Path)
	if err != nil {
		return nil, err
	}
	more, err := cache.ReceiptsOfNAR(ctx, f.NAR)
	if err != nil {
		return nil, err
	}
	all.Merge(more)
	return all, nil
}
