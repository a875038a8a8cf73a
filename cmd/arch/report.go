package main

import (
	"fmt"
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
)

// verifyResult is what --json shows of a verification: the report, and what it means for a reader.
type verifyResult struct {
	*attest.Report
	Build *claimResult `json:"build,omitempty"` // what was built from what; only if the report is OK
	Rules []ruleResult `json:"rules"`           // by which it was judged
}

func (verifyResult) kind() string { return "VerifyResult" }

// claimResult tells from what an artifact was built.
type claimResult struct {
	Name         string        `json:"name"`
	Platform     string        `json:"platform"`
	Inputs       []inputResult `json:"inputs"`
	Dependencies int           `json:"dependencies"` // how many things went in, all pinned
}

type inputResult struct {
	Name string `json:"name"`
	From string `json:"from"`
}

// ruleResult names a document by which an artifact was judged.
type ruleResult struct {
	Kind    string        `json:"kind"`
	Name    string        `json:"name"`
	Version int64         `json:"version,omitempty"`
	ID      digest.SHA256 `json:"id"`
}

// uri names the document in a verification summary.
func (r ruleResult) uri() string {
	if r.Kind == "Policy" {
		return "policy:" + r.ID.String()
	}
	return "trust-root:" + r.ID.String()
}

// describeClaim reads the claim that the report believes; nil if it believes none.
func describeClaim(receipt *attest.Receipt, r *attest.Report) *claimResult {
	if !r.OK {
		return nil
	}
	for _, env := range receipt.Claims {
		if env.ID() != r.Claim {
			continue
		}
		stmt, err := attest.ParseStatement(env.Payload)
		if err != nil {
			return nil
		}
		claim, err := stmt.Claim()
		if err != nil {
			return nil
		}
		doc, err := claim.Document()
		if err != nil {
			return nil
		}
		res := &claimResult{Name: doc.Metadata.Name, Platform: doc.Spec.Platform, Dependencies: len(claim.ResolvedDependencies)}
		for _, in := range doc.Spec.Inputs {
			res.Inputs = append(res.Inputs, inputResult{in.Name, inputSource(in, "")})
		}
		return res
	}
	return nil
}

// inputSource says where an input comes from.
func inputSource(in manifest.BuildInput, base string) string {
	switch {
	case in.Path != "" && base != "":
		return "path " + base + "/" + in.Path
	case in.Path != "":
		return "path " + in.Path
	case in.GoModules != nil:
		return "the Go modules of " + in.GoModules.Of
	}
	return in.Ref.String()
}

func (res verifyResult) text(s *screen) {
	colors := map[attest.Result]string{attest.Pass: "32", attest.Fail: "31", attest.Skip: "2"}
	for line := range strings.Lines(res.Report.Text()) {
		word, rest, _ := strings.Cut(line, " ")
		if code, ok := colors[attest.Result(word)]; ok {
			s.paint(code, word)
			line = " " + rest
		}
		fmt.Fprint(s, line)
	}
	fmt.Fprintf(s, "%s ", res.Artifact)
	if !res.OK {
		s.paint("31", "NOT verified")
		fmt.Fprintf(s, ": %s\n", res.Class)
		return
	}
	s.paint("32", "verified")
	fmt.Fprintln(s)
	res.summary(s)
}

// summary answers: what is it, who built it, from what, under which rules.
func (res verifyResult) summary(s *screen) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(s, "  %-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("digest", "%s", res.Digest)
	for _, b := range res.Builders {
		operator := b.Operator
		if operator == "" {
			operator = b.Principal
		}
		line("built by", "%s, operator %s, as %s", b.Principal, operator, b.BuilderID)
	}
	if res.Build != nil {
		for _, in := range res.Build.Inputs {
			line("from", "%s: %s", in.Name, in.From)
		}
		line("", "%s in all", count(res.Build.Dependencies, "pinned dependency", "pinned dependencies"))
	}
	for _, r := range res.Rules {
		version := ""
		if r.Version > 0 {
			version = fmt.Sprintf(" version %d", r.Version)
		}
		line("under", "%s %s%s, %s", r.Kind, r.Name, version, r.ID)
	}
}
