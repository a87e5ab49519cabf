# What only CI calls. Values come from the environment, where a workflow cannot write shell by them.
CACHE ?= .dvc/cache
BEFORE ?= base/.tunetrail/small
AFTER ?= .tunetrail/small
RELEASE := $(CI_DIR)release.py

.PHONY: small changes comment remote pull-results push-results retrained propose check-tag dist notes release

small: $(READY) ## a small copy of the comparison in .tunetrail/small, run to its end
	@$(BIN)/tunetrail small .tunetrail/small --cache $(CACHE)
	@cd .tunetrail/small && tunetrail run

changes: $(READY) ## how the scores of AFTER differ from those of BEFORE: build/changes.md
	@mkdir -p build && $(BIN)/tunetrail changes $(BEFORE) $(AFTER) --markdown > build/changes.md
	@{ printf '\n<details><summary>All scores after the change</summary>\n\n' \
	  && cat $(AFTER)/comparison/table.md && printf '\n</details>\n'; } >> build/changes.md

comment: # build/changes.md as the one comment on pull request PR
	@gh pr comment "$$PR" --edit-last --create-if-none --body-file build/changes.md

remote: $(READY) # DVC's remote from DVC_REMOTE_URL, with DVC_SSH_KEY and DVC_SSH_HOST_KEY where given
	@$(CI_DIR)remote

pull-results: $(READY) # what dvc.lock names, if it is committed: only what is stale is executed then
	@if git cat-file -e HEAD:dvc.lock 2> /dev/null; then $(BIN)/dvc pull --run-cache; fi

push-results: $(READY)
	@$(BIN)/dvc push --run-cache

retrained: $(READY) # build/changes.md: what was done, and scores against those of HEAD, if committed
	@mkdir -p build && : > build/changes.md
	@if git cat-file -e HEAD:dvc.lock 2> /dev/null; then $(MAKE) --no-print-directory changes \
	  BEFORE=HEAD AFTER=.; elif [ -e comparison/table.md ]; then cp comparison/table.md build/changes.md; fi
	@{ cat .tunetrail/retrain.md && echo && cat build/changes.md; } > build/retrained.md
	@mv build/retrained.md build/changes.md

propose: # locks, params.yaml and versions of the data as a branch and a pull request
	@$(CI_DIR)propose

check-tag: # TAG is the version of pyproject.toml, and CHANGELOG.md has a section on it
	@$(PYTHON) $(RELEASE) check "$$TAG"

dist: $(READY) ## source distribution, and the wheel built from it, in dist/
	@rm -rf dist && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build

notes: # dist/notes.md: the section of CHANGELOG.md on TAG
	@mkdir -p dist && $(PYTHON) $(RELEASE) notes "$$TAG" > dist/notes.md

release: # TAG with what is in dist/, on GitHub
	@gh release create "$$TAG" dist/*.whl dist/*.tar.gz --verify-tag --title "$$TAG" \
	  --notes-file dist/notes.md
