;; guix repl -L guix wrapper.scm BIN: builds the agent's least-authority wrapper for real, around the program in the directory BIN, and
;; prints its file name, the argument list, and what the service sets in the environment.
(load "debian.scm")
(use-modules (arch services) (guix derivations) (guix gexp) (guix monads) (guix packages) (guix store) (ice-9 match))

(match (command-line)
  ((_ bin)
   (let ((config (arch-node-configuration
                  (package (local-file bin "arch" #:recursive? #t)))))
     (with-store store
       (set-build-options store #:use-substitutes? #f #:print-build-trace #f)
       (run-with-store store
         (mlet* %store-monad ((guile (package->derivation debian-guile "x86_64-linux" #:graft? #f))
                              (_ (set-guile-for-build debian-guile))
                              (drv (lower-object ((@@ (arch services) agent-wrapper) config))))
           (mbegin %store-monad
             (built-derivations (list drv))
             (begin
               (format #t "~a~%~a~%" (derivation->output-path drv) (string-join (arch-node-agent-arguments config)))
               (return #t))))
         #:system "x86_64-linux")))))
