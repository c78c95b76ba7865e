/* bpf/shared/question.h - where tr_question leaves its answer: in cb[] of the packet that it was asked about. */
#pragma once

#define TR_ANSWER_REASON 0 /* enum tr_reason */
#define TR_ANSWER_RULE 1   /* rule number, 0: none */
