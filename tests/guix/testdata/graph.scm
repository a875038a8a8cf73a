;; For `arch build --guix`: a derivation of every kind that can be built from nothing but Debian's bash-static.  A source of each form that Guix names by
;; content, a fixed output, several outputs; NOISY is an output that differs at each build.
(use-modules (gcrypt hash) (guix derivations) (guix gexp) (guix monads) (guix store) (rnrs bytevectors))

(define raw (store-lift derivation))
(define noisy (or (getenv "NOISY") ""))

(define (run name bash script . rest)
  (apply raw name bash (list "-c" script) #:system "x86_64-linux" rest))

(define (fixed content)
  (list #:hash (sha256 (string->utf8 content)) #:hash-algo 'sha256))

(lambda ()
  (mlet* %store-monad ((bash (interned-file "/bin/bash-static" "bash"))
                       (flat (interned-file "/etc/debian_version" "version" #:recursive? #f))
                       (note (text-file "note" (string-append "a note on " bash "\n") (list bash)))
                       (fixed (apply run "fixed" bash "echo fixed > $out" #:sources (list bash)
                                     #:env-vars '(("url" . "(\"https://example.org/fixed\" \"https://example.com/fixed\")"))
                                     (fixed "fixed\n")))
                       (dep (run "dep" bash (string-append "echo dep > $out; echo " note " $(< " flat ") > $doc")
                                 #:outputs '("out" "doc") #:sources (list bash note flat))))
    (run "graph" bash
         (string-append "echo $(< $dep) $(< $fixed) > $out; echo doc > $doc; echo of $out > $lib
" (if (string=? noisy "") "" (string-append "echo $RANDOM$RANDOM >> $" noisy)))
         #:outputs '("out" "doc" "lib")
         #:env-vars `(("dep" . ,(derivation->output-path dep "doc")) ("fixed" . ,(derivation->output-path fixed)))
         #:inputs (list (derivation-input dep '("doc")) (derivation-input fixed '("out")))
         #:sources (list bash))))
