package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/imagespec"
)

// Bounds of what is read of an image's referrers, which anybody may add who may push.
const (
	maxReferrers     = 256
	maxReferrerBytes = 4 << 20 // of one attestation
)

// receiptTypes are the media types of layers that hold attestations: those of in-toto bundles and of DSSE envelopes, as cosign and
// others attach them.
var receiptTypes = []string{
	"application/vnd.in-toto+json", "application/vnd.in-toto.bundle", "application/vnd.dsse.envelope.v1+json", "application/vnd.in-toto+jsonl",
}

// referrer is an index or a manifest, as far as it matters here.
type referrer struct {
	Manifests []referrerPart `json:"manifests"`
	Layers    []referrerPart `json:"layers"`
}

type referrerPart struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// Receipts returns the attestations that a registry has of an image (OCI distribution-spec 1.1, referrers; for registries without them
// the tag sha256-HEX). Nothing in them is believed. An image without any has an empty receipt; with Offline the error is a *MissingError.
func (f *Fetcher) Receipts(ctx context.Context, ref manifest.Ref) (*attest.Receipt, error) {
	if ref.Scheme != manifest.RefOCI {
		return nil, fmt.Errorf("find attestations of %s: it is in no registry", ref)
	}
	r, err := f.openRegistry(ctx, ref.Location)
	if err != nil {
		return nil, err
	}
	list, err := r.referrers(ctx, ref.Digest)
	if err != nil {
		return nil, fmt.Errorf("find attestations of %s: %w", ref, err)
	}
	all := &attest.Receipt{}
	for _, m := range list[:min(len(list), maxReferrers)] {
		if err := r.attestations(ctx, m, all); err != nil {
			if ctx.Err() != nil || temporary(err) {
				return nil, fmt.Errorf("read attestations of %s: %w", ref, err)
			}
			// Somebody's rubbish, which must not hide what others attached.
			f.log(Event{Kind: EventSkip, What: ref.String(), Detail: "an attestation: " + err.Error()})
		}
	}
	return all, nil
}

// attestations adds what one referrer holds.
func (r *ociRegistry) attestations(ctx context.Context, m referrerPart, into *attest.Receipt) error {
	data, err := r.referrerBytes(ctx, "manifests", m, imagespec.MaxDocument)
	if err != nil {
		return err
	}
	var doc referrer
	if err := json.Unmarshal(data, &doc); err != nil {
		return finalError{err}
	}
	for _, layer := range doc.Layers[:min(len(doc.Layers), maxReferrers)] {
		if !slices.Contains(receiptTypes, layer.MediaType) {
			continue
		}
		data, err := r.referrerBytes(ctx, "blobs", layer, maxReferrerBytes)
		if err != nil {
			return err
		}
		one, err := attest.ReadReceipt(bytes.NewReader(data))
		if err != nil {
			return finalError{err}
		}
		into.Merge(one)
	}
	return nil
}

// referrers lists the manifests whose subject is an image.
func (r *ociRegistry) referrers(ctx context.Context, d digest.SHA256) ([]referrerPart, error) {
	for _, address := range []string{r.base + "/referrers/" + d.String(), r.base + "/manifests/sha256-" + d.Hex()} {
		data, err := r.f.get(ctx, address, imagespec.MaxDocument)
		if status, ok := errors.AsType[*statusError](err); ok && status.code == http.StatusNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		var index referrer
		if err := json.Unmarshal(data, &index); err != nil {
			return nil, fmt.Errorf("the list of referrers is no index: %w", err)
		}
		if len(index.Manifests) > 0 {
			return index.Manifests, nil
		}
	}
	return nil, nil
}

// referrerBytes reads what a descriptor describes.
func (r *ociRegistry) referrerBytes(ctx context.Context, kind string, part referrerPart, max int64) ([]byte, error) {
	d, err := digest.Parse(part.Digest)
	if err != nil {
		return nil, finalError{err}
	}
	data, err := r.f.get(ctx, r.base+"/"+kind+"/"+d.String(), max)
	if err != nil {
		return nil, err
	}
	if digest.Of(data) != d {
		return nil, finalError{fmt.Errorf("what was sent as %s is %s", d, digest.Of(data))}
	}
	return data, nil
}
