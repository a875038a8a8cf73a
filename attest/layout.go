package attest

import (
	"context"
	"encoding/hex"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"arch.network/attest/digest"

	intoto "github.com/in-toto/in-toto-golang/in_toto"
)

// Limits of a layout and its links.
const (
	maxLayout = 1 << 20  // bytes
	maxLink   = 16 << 20 // bytes
	maxLinks  = 1024
	// maxLinkChecks bounds the signature checks of all links together, each counted once more for every 32 KiB that it hashes.
	maxLinkChecks = 16384
)

// LayoutInput is everything that checking an in-toto layout depends on (in-toto specification v1.0). It is all in
// memory: nothing is read from the file system, and no command of the layout is ever run.
type LayoutInput struct {
	Layout []byte   // Metablock or DSSE envelope, JSON
	Keys   [][]byte // PEM public keys of the layout's owners: each one must have signed it; at least one
	Links  [][]byte // contents of the link files, in any order; those that help no step are ignored

	Name   string        // name of the artifact among the products of the last step; empty: any name
	Digest digest.SHA256 // of the artifact's file; zero: no artifact is looked for
	At     time.Time     // when to judge the layout's expiry; required

	// SkipInspections goes on although the layout has inspections, which are commands that a verifier would have to run.
	// They are not run, and the report says so. Without it such a layout is refused.
	SkipInspections bool
}

// Names of the checks of a layout.
const (
	CheckLayoutSignature = "layout-signature"
	CheckLayoutExpiry    = "layout-expiry"
	CheckLayoutForm      = "layout-form"
	CheckInspections     = "layout-inspections"
	CheckStep            = "layout-step"
	CheckCommand         = "layout-command"
	CheckRules           = "layout-rules"
	CheckProduct         = "layout-product"
)

// VerifyLayout checks an artifact against a layout and links. Signers of a step are counted by their public keys. It
// refuses what it cannot check: certificates, sublayouts, and inspections unless told to skip them. The artifact
// rules are in-toto-golang's; its InTotoVerify is not used, because it runs the commands of inspections, reads the
// clock, counts signers by key id and prints. The error is for mistakes of the caller.
func VerifyLayout(ctx context.Context, in LayoutInput) (*Report, error) {
	if in.At.IsZero() {
		return nil, fmt.Errorf("verify layout: no time")
	}
	keys, err := layoutKeys(in.Keys)
	if err != nil {
		return nil, err
	}
	r := &Report{Artifact: in.Name, Digest: in.Digest, At: in.At}
	v := &layoutVerification{LayoutInput: in, report: r}
	required := []string{CheckLayoutSignature, CheckLayoutExpiry, CheckLayoutForm, CheckRules}
	if !in.Digest.IsZero() {
		required = append(required, CheckProduct)
	}
	if v.open(ctx, keys) && v.checkForm() {
		v.checkLinks(ctx)
	}
	r.decide(required...)
	return r, nil
}

// layoutVerification is the work of one VerifyLayout.
type layoutVerification struct {
	LayoutInput
	report *Report
	layout intoto.Layout
	checks int // signature checks made of links
}

// open verifies the layout's signatures and then reads it.
func (v *layoutVerification) open(ctx context.Context, keys []layoutKey) bool {
	m, err := parseMetadata(v.Layout, maxLayout)
	if err != nil {
		v.report.fail(ClassVerification, CheckLayoutForm, "", "", "read layout: %v", err)
		return false
	}
	for _, k := range keys {
		if !m.signedBy(ctx, k) {
			v.report.fail(ClassVerification, CheckLayoutSignature, k.name(), "", "the layout is not signed by the key %s", k.name())
			return false
		}
		v.report.pass(CheckLayoutSignature, k.name(), "the layout is signed")
	}
	layout, ok := m.payload.(intoto.Layout)
	if !ok {
		v.report.fail(ClassVerification, CheckLayoutForm, "", "", "what was given as layout is a link")
		return false
	}
	v.layout = layout
	return v.checkExpiry()
}

func (v *layoutVerification) checkExpiry() bool {
	expires, err := time.Parse(intoto.ISO8601DateSchema, v.layout.Expires)
	switch {
	case err != nil:
		v.report.fail(ClassVerification, CheckLayoutExpiry, "", "", "expires: %q is no time", v.layout.Expires)
	case !v.At.Before(expires):
		v.report.fail(ClassVerification, CheckLayoutExpiry, "", "ask the owner of the layout for a newer one", "the layout expired on %s", v.layout.Expires)
	default:
		v.report.pass(CheckLayoutExpiry, "", "valid until %s", v.layout.Expires)
		return true
	}
	return false
}

// checkForm refuses what is malformed and what cannot be checked here.
func (v *layoutVerification) checkForm() bool {
	refuse := func(hint, format string, args ...any) bool {
		v.report.fail(ClassVerification, CheckLayoutForm, "", hint, format, args...)
		return false
	}
	l := v.layout
	if err := intoto.ValidateMetablock(intoto.Metablock{Signed: l}); err != nil {
		return refuse("", "the layout is not valid: %v", err)
	}
	if len(l.RootCas) > 0 || len(l.IntermediateCas) > 0 {
		return refuse("list the keys of the functionaries instead", "the layout relies on certificates, which are not supported")
	}
	if len(l.Steps) == 0 {
		return refuse("", "the layout has no steps")
	}
	for _, s := range l.Steps {
		if len(s.CertificateConstraints) > 0 {
			return refuse("list the keys of the functionaries instead", "step %q relies on certificates, which are not supported", s.Name)
		}
		if s.Threshold < 1 {
			return refuse("", "step %q has the threshold %d", s.Name, s.Threshold)
		}
	}
	var inspections []string
	for _, i := range l.Inspect {
		inspections = append(inspections, fmt.Sprintf("%q", i.Name))
	}
	switch {
	case len(inspections) > 0 && !v.SkipInspections:
		v.report.fail(ClassPolicy, CheckInspections, "", "to go on without them, skip inspections explicitly",
			"the layout wants commands to be run, which a verifier here never does: %s", strings.Join(inspections, ", "))
		return false
	case len(inspections) > 0:
		v.report.skip(CheckInspections, "not run, as asked: %s", strings.Join(inspections, ", "))
	}
	v.report.pass(CheckLayoutForm, "", "%s, %s", count(len(l.Steps), "step"), count(len(l.Keys), "functionary key"))
	return true
}

// checkLinks finds the links of each step, counts their signers, and applies the rules.
func (v *layoutVerification) checkLinks(ctx context.Context) {
	links := v.parseLinks()
	reduced := map[string]intoto.Metadata{}
	ok := true
	for _, step := range v.layout.Steps {
		link, good := v.checkStep(ctx, step, links)
		ok = ok && good
		reduced[step.Name] = &intoto.Metablock{Signed: link}
	}
	if !ok {
		return
	}
	items := make([]any, len(v.layout.Steps))
	for i, step := range v.layout.Steps {
		items[i] = step
	}
	if err := intoto.VerifyArtifacts(items, reduced); err != nil {
		v.report.fail(ClassVerification, CheckRules, "", "", "%v", err)
		return
	}
	v.report.pass(CheckRules, "", "materials and products follow the rules of %s", count(len(items), "step"))
	v.checkProduct(reduced[v.layout.Steps[len(items)-1].Name].GetPayload().(intoto.Link))
}

func (v *layoutVerification) parseLinks() []*metadata {
	var out []*metadata
	for _, data := range v.Links[:min(len(v.Links), maxLinks)] {
		if m, err := parseMetadata(data, maxLink); err == nil {
			out = append(out, m)
		}
	}
	return out
}

// checkStep returns the link that the step's functionaries agree on.
func (v *layoutVerification) checkStep(ctx context.Context, step intoto.Step, links []*metadata) (intoto.Link, bool) {
	fail := func(format string, args ...any) (intoto.Link, bool) {
		v.report.fail(ClassVerification, CheckStep, "", "", "step %q: "+format, append([]any{step.Name}, args...)...)
		return intoto.Link{}, false
	}
	signed := map[digest.SHA256]string{} // name of each distinct public key that signed a link of the step
	keys := v.keysOf(step)
	var first *intoto.Link
	for _, m := range links {
		link, ok := m.payload.(intoto.Link)
		if ok && link.Name != step.Name {
			continue // whoever signed it
		}
		by := v.functionaries(ctx, keys, m)
		switch {
		case v.checks > maxLinkChecks:
			return fail("the links have more signatures than are checked at once")
		case len(by) == 0:
			continue
		case !ok:
			return fail("it is done by a sublayout, which is not supported")
		}
		if err := checkLinkPaths(link); err != nil {
			return fail("%v", err)
		}
		if first == nil {
			first = &link
			v.checkCommand(step, link)
		}
		if !reflect.DeepEqual(first.Materials, link.Materials) || !reflect.DeepEqual(first.Products, link.Products) {
			return fail("its functionaries report different materials or products")
		}
		for _, k := range by {
			signed[k.id] = k.name()
		}
	}
	var names []string
	for _, name := range signed {
		names = append(names, name)
	}
	slices.Sort(names)
	if first == nil || len(signed) < step.Threshold {
		return fail("%d of its functionaries signed a link, %d are needed", len(signed), step.Threshold)
	}
	v.report.pass(CheckStep, strings.Join(names, ", "), "step %q: done by %d, %d needed", step.Name, len(signed), step.Threshold)
	return *first, true
}

// keysOf returns the keys of the step's functionaries.
func (v *layoutVerification) keysOf(step intoto.Step) []layoutKey {
	var out []layoutKey
	for _, id := range step.PubKeys {
		key, ok := v.layout.Keys[id]
		if !ok || key.KeyID != id {
			continue
		}
		if k, err := newLayoutKey(key); err == nil {
			out = append(out, k)
		}
	}
	return out
}

// functionaries returns those of keys that signed m. Over maxLinkChecks it tries no more.
func (v *layoutVerification) functionaries(ctx context.Context, keys []layoutKey, m *metadata) []layoutKey {
	var out []layoutKey
	for _, k := range keys {
		v.checks += len(m.signatures) * (1 + len(m.message)>>15)
		if v.checks > maxLinkChecks {
			return nil
		}
		if m.signedBy(ctx, k) {
			out = append(out, k)
		}
	}
	return out
}

// checkCommand compares what was run with what was expected. The specification makes a difference a warning only.
func (v *layoutVerification) checkCommand(step intoto.Step, link intoto.Link) {
	if len(step.ExpectedCommand) > 0 && !slices.Equal(step.ExpectedCommand, link.Command) {
		v.report.skip(CheckCommand, "step %q: %q was run, not %q", step.Name,
			shorten(strings.Join(link.Command, " "), 200), shorten(strings.Join(step.ExpectedCommand, " "), 200))
	}
}

// checkLinkPaths wants clean paths: the rules compare cleaned ones, so that "a" and "./a" could stand for each other.
func checkLinkPaths(link intoto.Link) error {
	for _, set := range []map[string]intoto.HashObj{link.Materials, link.Products} {
		for name := range set {
			if path.Clean(name) != name {
				return fmt.Errorf("artifact %q is not a clean path", name)
			}
		}
	}
	return nil
}

// checkProduct looks for the artifact among the products of the last step.
func (v *layoutVerification) checkProduct(last intoto.Link) {
	if v.Digest.IsZero() {
		v.report.skip(CheckProduct, "no artifact was given")
		return
	}
	found := []string{}
	for name, hashes := range last.Products {
		if hashes["sha256"] == hex.EncodeToString(v.Digest[:]) && (v.Name == "" || path.Base(name) == path.Base(v.Name)) {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		v.report.fail(ClassVerification, CheckProduct, "", "the artifact was changed, or belongs to another layout",
			"%q with %s is no product of the last step %q", v.Name, v.Digest, last.Name)
		return
	}
	v.report.pass(CheckProduct, "", "%s is product %q of step %q", v.Digest, slices.Min(found), last.Name)
}
